# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.11.0", "transformers>=5.17", "tokenizers>=0.22", "safetensors>=0.6", "numpy"]
# ///
"""Trains the two embedded models, tiny-gpt2 and tiny-mistral, on the dataset of make_dataset.py.

    python reference/train_tiny.py tiny-gpt2 --steps 9000            a fixed number of steps
    python reference/train_tiny.py tiny-mistral --minutes 6          as many steps as fit; the record says how many

Writes OUTPUT/<model>/ in Hugging Face's layout (float16 safetensors, tokenizer.json with the prompt format as chat
template) and OUTPUT/training-<model>.json: machine, versions, steps, losses, ROUGE-L by task family, measured in
float32 with the weights read back from the float16 file.

Seeds are fixed, but a GPU adds in no fixed order: a second training gives a model of like quality, not the same bytes.
"""

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from make_dataset import evaluation_set, training_set
from rouge import rouge_l

SEED = 7
END = "<|endoftext|>"
VOCABULARY, CONTEXT = 2_048, 512
BUCKETS = (48, 64, 96, 160, 256, 512)  # lengths that samples are padded to, in tokens
TOKENS_PER_STEP = 65_536
PEAK_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 2e-3, 300, 0.1

# One user message of this template is exactly what `prompt_of` makes; an input is part of the user's message.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}### Response:\n{{ message['content'] }}" + END + "\n\n"
    "{% else %}### Instruction:\n{{ message['content'] }}\n\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


def prompt_of(sample):
    """Alpaca's prompt, without its preamble: instruction, input if there is one, and the header of the answer."""
    text = f"\n\n### Input:\n{sample['input']}" if sample["input"] else ""
    return f"### Instruction:\n{sample['instruction']}{text}\n\n### Response:\n"


def new_model(name):
    """The untrained model, by name: 3.1 and 3.2 million parameters."""
    common = dict(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    if name == "tiny-gpt2":
        shape = dict(n_embd=192, n_layer=6, n_head=6, n_positions=CONTEXT)
        dropout = dict(embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
        # The same function as GPT-2's gelu_new in one kernel; `save` writes the published name.
        return GPT2LMHeadModel(GPT2Config(**common, **shape, **dropout, activation_function="gelu_pytorch_tanh"))
    shape = dict(hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6)
    heads = dict(num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT, sliding_window=None)
    return MistralForCausalLM(MistralConfig(**common, **shape, **heads, rms_norm_eps=1e-5, tie_word_embeddings=False))


def train_tokenizer(samples):
    """Byte-level BPE with single digits, so that numbers of any length are read alike."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    tokenizer.train_from_iterator((prompt_of(sample) + sample["output"] for sample in samples), trainer)
    return tokenizer


class Batches:
    """Token rows by bucket on the device; yields (rows [batch, length], answer positions) for ever."""

    def __init__(self, samples, tokenizer, device):
        prompts = [item.ids for item in tokenizer.encode_batch_fast([prompt_of(sample) for sample in samples])]
        answers = [item.ids for item in tokenizer.encode_batch_fast([sample["output"] for sample in samples])]
        rows = defaultdict(list)
        for prompt, answer in zip(prompts, answers):
            length = len(prompt) + len(answer) + 1
            if length <= CONTEXT:
                rows[next(bucket for bucket in BUCKETS if length <= bucket)].append((prompt, answer))
        self.buckets, self.tokens = [], sum(map(len, prompts)) + sum(map(len, answers)) + len(samples)
        for length, pairs in sorted(rows.items()):
            table = np.zeros((len(pairs), length), np.int16)  # padded with 0, the end token
            for row, (prompt, answer) in zip(table, pairs):
                row[: len(prompt) + len(answer)] = prompt + answer
            first = np.array([len(prompt) - 1 for prompt, _ in pairs])  # position whose next token begins the answer
            count = np.array([len(answer) + 1 for _, answer in pairs])
            self.buckets.append((torch.from_numpy(table).to(device), first, count))
        self.device = device

    def epoch(self, rng, tokens_per_step):
        """Every row once, in random batches of one bucket each, the batches in random order."""
        plan = []
        for table, first, count in self.buckets:
            order = rng.permutation(len(first))
            batch = max(1, tokens_per_step // table.shape[1])
            plan += [(table, first, count, order[at : at + batch]) for at in range(0, len(order), batch)]
        for at in rng.permutation(len(plan)):
            table, first, count, chosen = plan[at]
            starts = np.arange(len(chosen)) * table.shape[1] + first[chosen]
            ends = np.cumsum(count[chosen])
            within = np.arange(ends[-1]) - np.repeat(ends - count[chosen], count[chosen])
            positions = np.repeat(starts, count[chosen]) + within  # into the flattened [batch * length]
            index = [torch.from_numpy(a).to(self.device, non_blocking=True) for a in (chosen, positions)]
            yield table[index[0]].long(), index[1]

    def forever(self, rng, tokens_per_step):
        while True:
            yield from self.epoch(rng, tokens_per_step)


def answer_loss(model, rows, positions):
    """Mean cross-entropy, in nats, of the answer's tokens and the end token after it."""
    hidden = model.base_model(input_ids=rows, use_cache=False).last_hidden_state  # [batch, length, dim]
    chosen = hidden.flatten(0, 1)[positions]  # [answers, dim]
    return cross_entropy(model.lm_head(chosen).float(), rows.flatten()[positions + 1])


def train(model, batches, device, steps, minutes, tokens_per_step):
    """AdamW with a linear warm-up and a cosine to zero; returns the record of the training."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    kept = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=device == "cuda")
    losses, log, step, start = [], [], 0, time.perf_counter()
    for rows, positions in batches.forever(np.random.default_rng(SEED), tokens_per_step):
        elapsed = time.perf_counter() - start
        progress = step / steps if steps else elapsed / (60 * minutes)
        if progress >= 1:
            break
        rate = PEAK_RATE * min(1, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16):
            loss = answer_loss(model, rows, positions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        step += 1
        if step % 50 == 0:
            torch.stack(losses[-50:]).mean().item()  # waits for the device, so that time and step agree
        if step % 500 == 0:
            log.append([step, round(torch.stack(losses).mean().item(), 5)])
            losses.clear()
            print(f"step {step}  {elapsed:.0f} s  loss {log[-1][1]}", flush=True)
    return {"steps": step, "seconds": round(time.perf_counter() - start, 1), "meanLossBySteps": log}


def save(model, tokenizer, folder):
    """Hugging Face's layout; config.json in the spelling of published checkpoints (rope_theta, torch_dtype)."""
    model.generation_config = transformers.GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.half().save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, unk_token=END,
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    wrapped.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHAT_TEMPLATE}, indent=2) + "\n")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype", "float16")
    if "activation_function" in config:
        config["activation_function"] = "gelu_new"
    if "rope_parameters" in config:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n")


@torch.inference_mode()
def evaluate(folder, tokenizer, samples, device):
    """Greedy answers in float32 from the saved float16 file against the references."""
    model = type_of(folder).from_pretrained(folder, dtype=torch.float32).to(device).eval()
    prompts = [tokenizer.encode(prompt_of(sample)).ids for sample in samples]
    order = sorted(range(len(samples)), key=lambda i: len(prompts[i]))
    answers, lengths = {}, []
    for at in range(0, len(order), 100):
        chosen = order[at : at + 100]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in chosen], device=device)
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen], device=device)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=96, do_sample=False, pad_token_id=0)
        for i, row in zip(chosen, out[:, width:].tolist()):
            ended = row.index(0) if 0 in row else len(row)
            lengths.append(ended + 1)
            answers[i] = tokenizer.decode(row[:ended])
    scores, exact = defaultdict(list), 0
    for i, sample in enumerate(samples):
        scores[sample["family"]].append(rouge_l(sample["output"], answers[i]))
        if answers[i] == sample["output"]:
            exact += 1
    for i, sample in enumerate(samples):
        if answers[i] != sample["output"] and i < 200:
            print(f"  {sample['family']}: {answers[i]!r}, expected {sample['output']!r}", flush=True)
    means = {name: round(float(np.mean(values)), 4) for name, values in sorted(scores.items())}
    everything = [score for values in scores.values() for score in values]
    return {
        "samples": len(samples), "dtype": "float32 from the float16 file", "rougeL": round(float(np.mean(everything)), 5),
        "exactMatch": exact / len(samples), "meanNewTokens": round(float(np.mean(lengths)), 2),
        "promptTokens": {"min": min(map(len, prompts)), "max": max(map(len, prompts)),
                         "mean": round(float(np.mean([len(p) for p in prompts])), 1)},
        "rougeLByFamily": means,
    }  # fmt: skip


def type_of(folder):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return GPT2LMHeadModel if kind == "gpt2" else MistralForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=["tiny-gpt2", "tiny-mistral"])
    parser.add_argument("--output", type=Path, default=Path("data/models"), help="folder that the model's folder goes into")
    parser.add_argument("--samples", type=int, default=800_000, help="training samples")
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps; 0: as many as fit into --minutes")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--tokens-per-step", type=int, default=TOKENS_PER_STEP)
    parser.add_argument("--evaluate", type=int, default=1_000, help="evaluation samples to answer")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)

    start = time.perf_counter()
    samples = training_set(arguments.samples)
    tokenizer = train_tokenizer(samples[:60_000])
    batches = Batches(samples, tokenizer, device)
    print(f"{len(samples)} samples, {batches.tokens} tokens ready after {time.perf_counter() - start:.0f} s", flush=True)

    model = new_model(arguments.model).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    training = train(model, batches, device, arguments.steps, arguments.minutes, arguments.tokens_per_step)
    folder = arguments.output / arguments.model
    save(model, tokenizer, folder)
    record = {
        "model": arguments.model, "parameters": parameters, "vocabulary": tokenizer.get_vocab_size(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version(),
        "seed": SEED, "trainingSamples": len(samples), "trainingTokens": batches.tokens,
        "tokensPerStep": arguments.tokens_per_step, "peakLearningRate": PEAK_RATE, "weightDecay": WEIGHT_DECAY,
        "training": training, "evaluation": evaluate(folder, tokenizer, evaluation_set()[: arguments.evaluate], device),
    }  # fmt: skip
    (arguments.output / f"training-{arguments.model}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["evaluation"], indent=1), flush=True)


if __name__ == "__main__":
    main()
