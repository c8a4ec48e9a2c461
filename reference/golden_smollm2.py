# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.11.0", "transformers==5.24.0", "tokenizers", "safetensors>=0.6", "numpy"]
# ///
"""Writes tests/golden-smollm2.json: SmolLM2-135M-Instruct's greedy answers to ten questions, by PyTorch.

    python reference/golden_smollm2.py [FOLDER]       FOLDER as scripts/smollm2.sh makes it; default: its default

Float32 on the stored float16 weights, eager attention, chat template, each prompt alone, at most 64 new tokens, the end
token included where one ends the answer. `margin` is the least distance between the two best logits at any step:
below 1e-3 rounding may choose another token, so such a question is refused.
"""

import json
import os
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
NEW_TOKENS = 64
SMALLEST_MARGIN = 1e-3
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Name three fruits that are red.",
    "What is 7 times 8?",
    "Translate 'good morning' into Spanish.",
    "Give me a short recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "List the planets of the solar system in order.",
    "Write a thank-you note to a teacher.",
]


def default_folder():
    cache = os.environ.get("RESPONSE_TIME_CACHE")
    system = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(cache) if cache else system / "response-time") / "smollm2"


@torch.inference_mode()
def answer(model, tokenizer, question):
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids, cache, new, margin = torch.tensor([prompt_ids]), None, [], float("inf")
    while len(new) < NEW_TOKENS:
        out = model(input_ids=ids, past_key_values=cache, use_cache=True)
        best = out.logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        new.append(best.indices[0].item())
        ids, cache = best.indices[None, :1], out.past_key_values
        if new[-1] == model.config.eos_token_id:
            break
    if margin < SMALLEST_MARGIN:
        raise SystemExit(f"{question!r}: two best logits are {margin:.1e} apart; ask something else")
    text = tokenizer.decode(new, skip_special_tokens=True)
    return {"question": question, "promptIds": prompt_ids, "newIds": new, "text": text, "margin": round(margin, 5)}


def main():
    torch.set_num_threads(1)  # the same bits on every machine, and no waiting for a busy core
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    made_by = f"python reference/golden_smollm2.py, torch {torch.__version__}, transformers {transformers.__version__}, CPU"
    answers = [answer(model, tokenizer, question) for question in QUESTIONS]
    golden = {"madeBy": made_by, "model": "SmolLM2-135M-Instruct, scripts/smollm2.sh", "answers": answers}
    text = json.dumps(golden, ensure_ascii=False)
    text = text.replace('{"question"', '\n{"question"').replace("}]}", "}\n]}")
    (ROOT / "tests" / "golden-smollm2.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
