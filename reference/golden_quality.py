# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.11.0", "transformers==5.24.0", "tokenizers", "safetensors>=0.6", "numpy", "rouge-score==0.1.2"]
# ///
"""Writes tests/golden/rouge.json, perplexity.json and quality.json; tests/golden/README.md says what they hold.

    python reference/golden_quality.py
"""

import copy
import json
import random
import statistics

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoTokenizer

import lexicon as lex
from golden import GOLDEN, ROOT, load
from make_dataset import evaluation_set
from rouge import rouge_l
from train_tiny import prompt_of

SEED = 5
TRICKY = [
    ("", ""), ("", "a word"), ("a word", ""), ("   ", "a"), ("...", "!?"), ("The cat.", "the CAT"), ("a a a a", "a a"),
    ("the the the", "the cat the dog the"), ("naïve café", "naive cafe"), ("Straße", "strasse"), ("İstanbul", "istanbul"),
    ("ﬁne print", "fine print"), ("水 is water", "water is 水"), ("水", "水"), ("don't stop", "dont stop"),
    ("e-mail me", "email me"), ("3.14 is pi", "3 14 is pi"), ("snake_case name", "snake case name"), ("K", "\u212a"),
    ("\u00bd cup", "1 2 cup"), ("tab\tand\nline", "tab and line"), ("no\u00a0break", "no break"), ("x\u200by", "xy"),
    ("I\u0307", "i"), ("emoji 🎉 party", "emoji party"), ("ΑΒΓ abc", "abc"), ("１２３ full width", "123 full width"),
    ("a b c d e f", "f e d c b a"), ("a b a b a b", "b a b a b a"), ("one", "one"), ("one", "two"), ("A.B.C.", "a b c"),
]  # fmt: skip


def random_pairs(count):
    """Pairs of a text and a damaged copy of it: words dropped, doubled, swapped, replaced; odd characters between."""
    rng = random.Random(SEED)
    samples = evaluation_set()
    for _ in range(count):
        words = rng.choice(samples)["output"].split()
        other = list(words)
        for _ in range(rng.randint(0, 6)):
            at = rng.randrange(len(other)) if other else 0
            change = rng.randrange(4)
            if change == 0 and other:
                del other[at]
            elif change == 1 and other:
                other.insert(at, other[at])
            elif change == 2:
                rng.shuffle(other)
            else:
                other.insert(at, rng.choice([*lex.WORDS, "—", "naïve", "日本", "x_y", "I'm", "Ⅷ", "a", "a"]))
        yield " ".join(words), rng.choice([" ", " ", "  ", "-"]).join(other)


def rouge_table(count=200):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    pairs = TRICKY + list(random_pairs(count - len(TRICKY)))
    table = []
    for reference, text in pairs:
        scores = scorer.score(reference, text)
        assert abs(scores["rougeL"].fmeasure - rouge_l(reference, text)) < 1e-12, (reference, text)
        table.append({"reference": reference, "text": text} | {name: list(score) for name, score in scores.items()})
    return {"columns": ["precision", "recall", "fmeasure"], "pairs": table}


@torch.inference_mode()
def answer_log_probabilities(model, prompt, answer):
    """Log-softmax in float64 of the logits at every answer position: [answer, vocab]."""
    logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


def tokenised(tokenizer, samples):
    """(prompt ids, answer ids with the end token) of each sample."""
    for sample in samples:
        answer = tokenizer(sample["output"])["input_ids"] + [tokenizer.eos_token_id]
        yield tokenizer(prompt_of(sample))["input_ids"], answer


def perplexity_table(name, count=20):
    folder = ROOT / "data" / "models" / name
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    rows, everything = [], []
    for prompt, answer in tokenised(tokenizer, evaluation_set()[:count]):
        found = answer_log_probabilities(model, prompt, answer)[range(len(answer)), answer].tolist()
        everything += found
        rows.append({"promptIds": prompt, "answerIds": answer, "logProbabilities": [round(value, 9) for value in found]})
    return {"perplexity": float(np.exp(-np.mean(everything))), "samples": rows}


def round_rows(weight, levels):
    """Symmetric integers of -levels..levels by row of a matrix [out, in], and back to float32."""
    largest = weight.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest / levels, torch.ones_like(largest))
    return (weight / scale).round().clamp(-levels, levels) * scale


def quality_case(levels, name="tiny-mistral", count=40):
    folder = ROOT / "data" / "models" / name
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        if parameter.dim() == 2:
            parameter.data = round_rows(parameter.data, levels)
    own, others, divergences, same = [], [], [], []
    for prompt, answer in tokenised(tokenizer, evaluation_set()[:count]):
        p = answer_log_probabilities(model, prompt, answer)
        q = answer_log_probabilities(rounded, prompt, answer)
        own += p[range(len(answer)), answer].tolist()
        others += q[range(len(answer)), answer].tolist()
        divergences += (p.exp() * (p - q)).sum(-1).tolist()
        same += (p.argmax(-1) == q.argmax(-1)).tolist()
    perplexities = [float(np.exp(-np.mean(values))) for values in (own, others)]
    return {
        "model": name, "samples": count, "positions": len(own), "levels": levels,
        "perplexity": perplexities[0], "perplexityOfCopy": perplexities[1],
        "perplexityRatio": perplexities[1] / perplexities[0],
        "klMean": statistics.fmean(divergences), "klP99": float(np.percentile(divergences, 99)),
        "sameTopToken": statistics.fmean(same),
    }  # fmt: skip


def write(file, value):
    """JSON with one entry of a list a line."""
    text = json.dumps(value, ensure_ascii=False).replace("}, {", "},\n {").replace("[{", "[\n {")
    (GOLDEN / file).write_text(text + "\n", encoding="utf-8")


def main():
    torch.set_num_threads(1)
    write("rouge.json", rouge_table())
    write("perplexity.json", {name: perplexity_table(name) for name in ("tiny-gpt2", "tiny-mistral")})
    quality = {"int8": quality_case(127), "coarse": quality_case(7)}
    (GOLDEN / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    print(json.dumps(quality, indent=2))


if __name__ == "__main__":
    main()
