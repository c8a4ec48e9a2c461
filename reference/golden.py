# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.11.0", "transformers==5.24.0", "tokenizers", "safetensors>=0.6", "numpy"]
# ///
"""Writes the golden files of tests/golden: checkpoints, and what transformers computes from them in float32.

    python reference/golden.py [case ...]

A case is a small random checkpoint in one of the layouts that people publish, or one of the embedded models.
transformers reads each from its own folder (eager attention, weights widened to float32), so a golden value never
comes from anything but the stored file. tests/golden/README.md describes the format; golden_quality.py writes the
values for texts and logits.
"""

import json
import shutil
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from make_dataset import evaluation_set
from train_tiny import prompt_of

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALLEST_MARGIN = 2e-3  # between the two best logits at every greedy step, so that rounding decides no token


@dataclass
class Case:
    """One checkpoint, and the prompts (by length) that it is run on, each alone and unpadded."""

    note: str
    config: dict
    dtype: str = "float32"
    prompts: tuple = (9,)
    new_tokens: int = 16
    names: object = staticmethod(lambda name: name)  # state dict name -> stored name; None: not stored
    extra: object = staticmethod(lambda config: {})  # tensors stored beside the parameters
    shards: int = 1
    pickled_shards: int = 0  # files of the same tensors under pickled/, by torch.save
    tensors: dict = field(default_factory=dict)


def gpt2(**change):
    base = dict(
        architectures=["GPT2LMHeadModel"], model_type="gpt2", activation_function="gelu_new", vocab_size=97, n_positions=32,
        n_embd=36, n_layer=2, n_head=3, layer_norm_epsilon=1e-5, bos_token_id=96, eos_token_id=96,
        attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1, initializer_range=0.02,
    )  # fmt: skip
    return base | change


def mistral(**change):
    base = dict(
        architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu", vocab_size=97, hidden_size=36,
        intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=None,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, attention_dropout=0.0,
    )  # fmt: skip
    return base | change


def llama(**change):
    base = mistral(architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False)
    return {name: value for name, value in base.items() if name != "sliding_window"} | change


def no_head(name):
    return None if name == "lm_head.weight" else name


def no_prefix(name):
    return name.removeprefix("transformer.")


def hub_layout(name):
    return None if name == "lm_head.weight" else no_prefix(name)


def mask_buffers(prefix, dtype):
    """The causal masks that old GPT-2 files carry; they are no parameters."""

    def make(config):
        size = config["n_positions"]
        mask = torch.tril(torch.ones(size, size, dtype=dtype)).view(1, 1, size, size)
        tensors = {}
        for layer in range(config["n_layer"]):
            tensors[f"{prefix}h.{layer}.attn.bias"] = mask.clone()
            tensors[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        return tensors

    return make


def inverse_frequencies(config):
    """What old Llama files carry in every layer; no parameter either."""
    width = config["hidden_size"] // config["num_attention_heads"]
    values = 1.0 / 10000.0 ** (torch.arange(0, width, 2).float() / width)
    layers = range(config["num_hidden_layers"])
    return {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": values.clone() for layer in layers}


CASES = {
    # ---- GPT-2
    "gpt2-inner": Case(
        "three heads, n_inner 50; transformer. prefix, tied head not stored; as transformers 5 saves it",
        gpt2(n_inner=50), names=no_head,
    ),
    "gpt2-hub-f16": Case(
        "five heads, n_inner null, layer norm epsilon 1e-3; float16; no prefix, no head, mask buffers: as the hub's gpt2",
        gpt2(n_embd=40, n_head=5, n_inner=None, layer_norm_epsilon=1e-3, torch_dtype="float16"), "float16",
        names=hub_layout, extra=mask_buffers("", torch.float32),
    ),
    "gpt2-full-context": Case(
        "untied head under its own name, transformer. prefix, one head; the prompt fills the context, so one token is "
        "foretold and none can be appended",
        gpt2(n_embd=20, n_head=1, n_positions=16, tie_word_embeddings=False), prompts=(16,), new_tokens=1,
    ),
    "gpt2-one-token": Case(
        "transformer. prefix, a second copy of the tied head as lm_head.weight, byte mask buffers; a prompt of one token; "
        "pickled too, the two copies in one storage",
        gpt2(n_embd=28, n_head=7), prompts=(1,), extra=mask_buffers("transformer.", torch.uint8), pickled_shards=1,
    ),
    "gpt2-batch-bf16": Case(
        "bfloat16, no prefix but a second copy of the tied head; four prompts of unequal length, each run alone",
        gpt2(n_head=9, torch_dtype="bfloat16"), "bfloat16", prompts=(1, 5, 9, 13), names=no_prefix,
    ),
    "gpt2-options": Case(
        "scores also divided by the layer's number (scale_attn_by_inverse_layer_idx), exact gelu, three layers",
        gpt2(n_embd=24, n_layer=3, scale_attn_by_inverse_layer_idx=True, activation_function="gelu"), names=no_head,
    ),
    "gpt2-unscaled": Case(
        "scores not divided by the square root of the head's width (scale_attn_weights false), relu",
        gpt2(n_embd=24, scale_attn_weights=False, activation_function="relu"), names=no_head,
    ),
    # ---- Mistral
    "mistral-gqa": Case("six heads on three key/value heads, untied; two prompts", mistral(), prompts=(9, 4)),
    "mistral-head-dim-sharded": Case(
        "five heads of width 14 on one key/value head (70 wide attention in a width of 40), rope_theta 1e6; bfloat16 in "
        "two shards; pickled in two shards too",
        mistral(hidden_size=40, num_attention_heads=5, num_key_value_heads=1, head_dim=14, rope_theta=1e6,
                torch_dtype="bfloat16"),
        "bfloat16", prompts=(11,), shards=2, pickled_shards=2,
    ),
    "mistral-window": Case(
        "sliding_window 5: prompts shorter than, as long as and longer than the window, each run alone",
        mistral(sliding_window=5, num_hidden_layers=3), prompts=(17, 1, 5, 6),
    ),
    "mistral-window-tied-f16": Case(
        "sliding_window 4, tied head not stored, float16, as transformers 5 spells config.json (rope_parameters, dtype)",
        {name: value for name, value in mistral(
            sliding_window=4, tie_word_embeddings=True, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
            rope_parameters={"rope_theta": 5000.0, "rope_type": "default"}, dtype="float16",
        ).items() if name != "rope_theta"},
        "float16", prompts=(13,), names=no_head,
    ),
    "mistral-full-context": Case(
        "the prompt fills the context (max_position_embeddings 12); one key/value head a head; norm epsilon 1e-3",
        mistral(num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=12, rms_norm_eps=1e-3),
        prompts=(12,), new_tokens=1,
    ),
    # ---- Llama
    "llama-bias": Case(
        "attention_bias and mlp_bias, float16, inv_freq buffers stored; prompts of one and of ten tokens",
        llama(attention_bias=True, mlp_bias=True, torch_dtype="float16"), "float16", prompts=(1, 10),
        extra=inverse_frequencies,
    ),
    "llama-linear": Case(
        "rope_scaling linear, factor 2.5, spelled `type`; tied head with a second copy stored",
        llama(rope_scaling={"type": "linear", "factor": 2.5}, tie_word_embeddings=True), prompts=(15,),
    ),
    "llama-llama3": Case(
        "rope_scaling llama3 as Llama 3.2 has it, original context 16 and a prompt beyond it; bfloat16, tied",
        llama(
            rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 16},
            hidden_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32, rope_theta=500.0,
            tie_word_embeddings=True, torch_dtype="bfloat16",
        ),
        "bfloat16", prompts=(33,), names=no_head,
    ),
}  # fmt: skip


def random_tensors(model, seed, dtype):
    """Values of a size that lets every part of the model matter: gains near 1, biases 0.2, kernels 1.3 / sqrt(in)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_gain = parameter.dim() == 1 and name.endswith("weight")
        width = 0.2 if parameter.dim() == 1 else 1.3 / parameter.shape[-1] ** 0.5
        if "wpe" in name:
            width = 1.0  # above the token's own, or a tied head would repeat the last token for ever
        elif "wte" in name or "embed" in name:
            width = 0.4
        parameter.data = (is_gain + width * noise).to(dtype)
    return model.state_dict()


def save_shards(tensors, folder, files, save, pattern, index):
    """Splits the tensors into files of about equal count, with Hugging Face's index when there are several."""
    names = list(tensors)
    cut = -(-len(names) // files)
    weight_map = {}
    for at in range(files):
        file = pattern if files == 1 else pattern.replace(".", f"-{at + 1:05d}-of-{files:05d}.", 1)
        part = OrderedDict((name, tensors[name]) for name in names[at * cut : (at + 1) * cut])
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if files > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}, indent=1)
        (folder / index).write_text(text + "\n")


def save_pickled(part, path):
    """As model.save_pretrained(safe_serialization=False) wrote it: an ordered dictionary with torch's _metadata."""
    part._metadata = OrderedDict({"": {"version": 1}})
    torch.save(part, path)


def write_checkpoint(case, folder, seed):
    """config.json and the weights in the layout of the case."""
    (folder / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    config = AutoConfig.from_pretrained(folder)
    state = random_tensors(AutoModelForCausalLM.from_config(config), seed, DTYPES[case.dtype])
    tensors = {case.names(name): tensor for name, tensor in state.items() if case.names(name) is not None}
    tensors |= case.extra(case.config)
    copies = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save = lambda part, path: save_file(part, path, metadata={"format": "pt"})  # noqa: E731
    save_shards(copies, folder, case.shards, save, "model.safetensors", "model.safetensors.index.json")
    if case.pickled_shards:
        pickled = folder / "pickled"
        pickled.mkdir()
        shutil.copy(folder / "config.json", pickled)
        # The first matrix that is not square goes in as a transposed view: torch.save keeps strides.
        name = next(name for name, tensor in tensors.items() if tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1])
        views = dict(tensors) | {name: tensors[name].t().contiguous().t()}
        save_shards(views, pickled, case.pickled_shards, save_pickled, "pytorch_model.bin", "pytorch_model.bin.index.json")
        check_pickled(pickled, copies)


def check_pickled(folder, expected):
    read = {}
    for file in folder.glob("*.bin"):
        read |= torch.load(file, weights_only=True)
    assert read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in read), folder


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"], (folder, info)
    return model.eval()


@torch.inference_mode()
def observe(model, ids):
    """Every state of one unpadded run: hidden.0 (embeddings), hidden.N (after block N), final_norm, logits."""
    base = model.base_model
    blocks, norm = (base.h, base.ln_f) if hasattr(base, "h") else (base.layers, base.norm)
    states = {}

    def note(name):
        def hook(module, inputs, output):
            states[name] = (output[0] if isinstance(output, tuple) else output)[0].clone()

        return hook

    first = blocks[0].register_forward_pre_hook(lambda module, inputs: states.update({"hidden.0": inputs[0][0].clone()}))
    hooks = [first, norm.register_forward_hook(note("final_norm"))]
    hooks += [block.register_forward_hook(note(f"hidden.{i + 1}")) for i, block in enumerate(blocks)]
    states["logits"] = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return states


@torch.inference_mode()
def greedy(model, ids, count):
    """`count` most likely tokens, the end token ignored, from full recomputation; and the smallest margin met."""
    ids, margin = list(ids), float("inf")
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = logits.topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-count:], margin


def expected_rows(model, prompts, count):
    """The tensors of each prompt's file, and the smallest margin of all greedy steps."""
    rows, margins = [], []
    for ids in prompts:
        tokens, margin = greedy(model, ids, count)
        states = observe(model, ids)
        integers = {"input_ids": torch.tensor(ids, dtype=torch.int32), "greedy": torch.tensor(tokens, dtype=torch.int32)}
        rows.append({name: tensor.contiguous() for name, tensor in (integers | states).items()})
        margins.append(margin)
    return rows, min(margins)


def write_expected(folder, rows, description):
    files = []
    for at, row in enumerate(rows):
        files.append("expected.safetensors" if len(rows) == 1 else f"expected-{at}.safetensors")
        save_file(row, folder / files[-1])
    (folder / "case.json").write_text(json.dumps(description | {"expected": files}, indent=2) + "\n")


def write_random_case(name, case):
    """Seeds are tried in order until no greedy step is near a tie."""
    folder = GOLDEN / name
    for seed in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(case, folder, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        vocabulary = case.config["vocab_size"]
        prompts = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in case.prompts]
        rows, margin = expected_rows(load(folder), prompts, case.new_tokens)
        varied = case.new_tokens == 1 or max(len(set(row["greedy"].tolist())) for row in rows) > 3
        if margin > SMALLEST_MARGIN and varied:
            break
    else:
        raise RuntimeError(f"{name}: no seed without a near tie")
    note = {"note": case.note, "checkpoint": ".", "seed": seed, "smallestMargin": round(margin, 5)}
    write_expected(folder, rows, note)
    print(name, "seed", seed, "margin", round(margin, 4), flush=True)


def write_tiny_case(name):
    """An embedded model on evaluation prompts: every state for one of them, 64 greedy tokens for eight families."""
    source = ROOT / "data" / "models" / name
    tokenizer, model = AutoTokenizer.from_pretrained(source), load(source)
    texts = {}
    for sample in evaluation_set():
        ids = tokenizer(prompt_of(sample))["input_ids"]
        if sample["family"] in texts or len(ids) > 24 or len(texts) == 8:
            continue
        tokens, margin = greedy(model, ids, 64)
        if margin > 5 * SMALLEST_MARGIN:
            texts[sample["family"]] = {
                "prompt": prompt_of(sample), "inputIds": ids, "greedyIds": tokens,
                "text": tokenizer.decode(tokens[: (tokens + [0]).index(0)]), "smallestMargin": round(margin, 5),
            }  # fmt: skip
    chosen = max(texts.values(), key=lambda item: len(item["text"]))
    rows, margin = expected_rows(model, [chosen["inputIds"]], 64)
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "note": "an embedded model on evaluation prompts; 64 tokens each, the end token ignored; text: up to the end token",
        "checkpoint": f"../../../data/models/{name}", "smallestMargin": round(margin, 5), "texts": list(texts.values()),
    }  # fmt: skip
    write_expected(folder, rows, description)
    print(name, "margin", round(margin, 4), [item["text"] for item in texts.values()])


def main(names):
    torch.set_num_threads(1)  # tiny matrices; and sums in one order
    for name in names or [*CASES, "tiny-gpt2", "tiny-mistral"]:
        if name in CASES:
            write_random_case(name, CASES[name])
        else:
            write_tiny_case(name)


if __name__ == "__main__":
    main(sys.argv[1:])
