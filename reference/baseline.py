# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "transformers>=4.57", "tokenizers", "safetensors"]
# ///
"""Measures PyTorch's greedy generation and prints Run records (lib/results.ts) as a JSON list.

    python reference/baseline.py --model data/models/tiny-gpt2 --prompts data/instructions-eval.json
    python reference/baseline.py --random-shape gpt2 --prompt-tokens 64 --new-tokens 15 --modes eager,compile,int8
    python reference/baseline.py --random-shape mistral-7b-instruct-v0.2 --device cuda --dtype f16 --modes eager,compile

Modes, each a configuration that is measured in turns with the others:
    eager    transformers' model, growing cache, its own fast attention (sdpa)
    compile  the same through torch.compile, with a cache of fixed size; on a GPU with CUDA graphs
    int8     dynamic INT8 on a CPU: every Linear and GPT-2 Conv1D, one scale an output channel

PyTorch gets its best: inference_mode, logits of the last position only, no padding, no work between tokens but argmax
(transformers' generate() does more), and a warm-up as long as the run. The end token is ignored, so that every sample
has the same number of new tokens.
"""

import argparse
import copy
import hashlib
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
import uuid
import warnings
from datetime import datetime, timezone
from pathlib import Path

import torch
import transformers
from torch import nn
from torch._dynamo.utils import counters
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, DynamicCache, GPT2Config, LlamaConfig, MistralConfig, StaticCache,
)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent
SEED = 11
RANDOM_SHAPES = {
    "gpt2": lambda: GPT2Config(),
    "gpt2-medium": lambda: GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "smollm2-135m": lambda: LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, rope_theta=1e5,
    ),
    "mistral-7b-instruct-v0.2": lambda: MistralConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=32768, rope_theta=1e6, sliding_window=None,
        rms_norm_eps=1e-5,
    ),
}  # fmt: skip
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
LABELS = {"eager": "PyTorch", "compile": "PyTorch compile", "int8": "PyTorch INT8"}


# ---- models -----------------------------------------------------------------------------------------------------


def load_model(options):
    dtype = DTYPES[options.dtype]
    if options.random_shape:
        torch.manual_seed(SEED)
        config = RANDOM_SHAPES[options.random_shape]()
        with torch.device(options.device):  # a GPU draws 7 billion weights in a second, a CPU in minutes
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    return model.to(options.device).eval()


def linear_of(conv):
    """GPT-2's Conv1D, stored [in, out], as the Linear that dynamic quantization knows."""
    rows, columns = conv.weight.shape
    linear = nn.Linear(rows, columns)
    linear.weight.data, linear.bias.data = conv.weight.data.t().contiguous(), conv.bias.data
    return linear


def dynamic_int8(model):
    """A copy of the model whose Linear layers hold int8 weights; embeddings and norms stay float32."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    from transformers.pytorch_utils import Conv1D

    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                setattr(module, name, linear_of(child))
    return quantize_dynamic(model, {nn.Linear: per_channel_dynamic_qconfig}, dtype=torch.qint8)


def weight_bytes(model):
    """Bytes of all parameters, shared ones once, quantized ones in their stored form."""
    tensors = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for parameter in model.parameters()}
    total = sum(tensors.values())
    for module in model.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            weight, bias = module._weight_bias()
            total += weight.numel() + 8 * weight.shape[0] + (0 if bias is None else 4 * bias.numel())
    return total


# ---- generation -------------------------------------------------------------------------------------------------


class Generator:
    """One mode of one model: prompt ids -> new ids and the moment of each, in ms."""

    def __init__(self, mode, model, capacity, device):
        self.mode, self.model, self.device = mode, model, device
        self.cache = StaticCache(config=model.config, max_cache_len=capacity) if mode == "compile" else None
        self.step = model.forward
        if mode == "compile":
            self.step = torch.compile(model.forward, mode="reduce-overhead" if device == "cuda" else "default")

    @torch.inference_mode()
    def __call__(self, prompt, count):
        ids = torch.tensor([prompt], device=self.device)
        if self.cache is not None:
            self.cache.reset()
        cache = DynamicCache(config=self.model.config) if self.cache is None else self.cache
        position = torch.arange(len(prompt), device=self.device)
        if self.device == "cuda":
            torch.cuda.synchronize()
        moments, new = [time.perf_counter()], []
        for _ in range(count):
            # The prompt varies in length: only the step of one token is worth compiling.
            step = self.model.forward if not new else self.step
            out = step(
                input_ids=ids, past_key_values=cache, cache_position=position, position_ids=position[None], use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            ids = out.logits[:, -1:].argmax(-1)
            new.append(ids.item())  # waits for the device
            position = position[-1:] + 1
            moments.append(time.perf_counter())
        return new, [1000 * (moment - moments[0]) for moment in moments[1:]]


def prompts_of(options, vocabulary, tokenizer):
    """`samples` prompts of ids: from a file of texts or Alpaca samples, else random ones of one length."""
    if not options.prompts:
        generator = torch.Generator().manual_seed(SEED)
        shape = (options.samples, options.prompt_tokens)
        return torch.randint(0, vocabulary, shape, generator=generator).tolist()
    entries = json.loads(Path(options.prompts).read_text(encoding="utf-8"))[: options.samples]
    texts = [entry if isinstance(entry, str) else user_message(entry) for entry in entries]
    if tokenizer.chat_template:
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
            for text in texts
        ]
    return [tokenizer(text)["input_ids"] for text in texts]


def user_message(sample):
    return sample["instruction"] + (f"\n\n### Input:\n{sample['input']}" if sample["input"] else "")


# ---- records ----------------------------------------------------------------------------------------------------


def machine(device):
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "id": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
        "cpu": models[0] if models and models[0] else platform.machine(),
        "cores": cores,
        "memoryBytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": f"{sys.platform} {platform.release()}",
    }
    return facts | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("RESPONSE_TIME_COMMIT") or None


def percentile(ascending, percent):
    """numpy's default: interpolated between the two nearest values."""
    position = (len(ascending) - 1) * percent / 100
    below = int(position)
    high = ascending[min(below + 1, len(ascending) - 1)]
    return ascending[below] + (high - ascending[below]) * (position - below)


def spread(values):
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    ascending = sorted(values)
    points = {f"p{percent}": percentile(ascending, percent) for percent in (50, 95, 99)}
    return {"mean": mean, "std": deviation, "min": ascending[0], **points, "max": ascending[-1]}


def cache_bytes(config, positions, element_bytes):
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * positions * element_bytes


def peak_rss_bytes():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def record(mode, generator, measured, options, shared):
    """The Run of one mode; `measured` is a list of (prompt length, new ids, moments)."""
    latencies = [moments[-1] for _, _, moments in measured]
    firsts = [moments[0] for _, _, moments in measured]
    created = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    config = generator.model.config
    longest = max(length for length, _, _ in measured)
    name = options.random_shape or Path(options.model).resolve().name
    source = f"reference/baseline.py --random-shape {name}" if options.random_shape else f"folder {name}"
    memory = {
        "weightBytes": weight_bytes(generator.model),
        "cacheBytes": cache_bytes(config, longest + options.new_tokens, DTYPES[options.dtype].itemsize),
        "peakRssBytes": peak_rss_bytes(),
    }
    if options.device == "cuda":
        memory["gpuBytes"] = shared["gpuBytes"][mode]
    return {
        "schemaVersion": 1,
        "id": f"{created[:19].replace('-', '').replace(':', '')}Z-pytorch-{mode}-{name}-{uuid.uuid4().hex[:4]}",
        "session": shared["session"],
        "createdAt": created,
        "commit": shared["commit"],
        "label": LABELS[mode],
        "machine": shared["machine"],
        "runtime": shared["runtime"],
        "model": {
            "name": name, "source": source, "family": config.model_type, "parameters": shared["parameters"],
            "randomWeights": bool(options.random_shape) or hasattr(config, "random_weights"),
        },
        "weights": "int8" if mode == "int8" else options.dtype,
        "backend": options.device,
        "target": "pytorch",
        "mode": "compile" if mode == "compile" else "eager",
        "cache": True,
        "promptTokens": longest,
        "newTokens": options.new_tokens,
        "batch": 1,
        "compile": shared["compile"] if mode == "compile" else None,
        "samples": {
            "latencyMs": latencies,
            "firstTokenMs": firsts,
            "promptTokens": [length for length, _, _ in measured],
            "newTokens": [len(new) for _, new, _ in measured],
            "perTokenMs": [[b - a for a, b in zip(moments, moments[1:])] for _, _, moments in measured],
        },
        "summary": {
            "latencyMs": spread(latencies),
            "firstTokenMs": spread(firsts),
            "tokensPerSecond": 1000 * sum(len(new) for _, new, _ in measured) / sum(latencies),
        },
        "memory": memory,
        "quality": None,
        "deviation": None,
        "checks": [],
        "notes": shared["notes"],
    }  # fmt: skip


# ---- the measurement --------------------------------------------------------------------------------------------


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="folder in Hugging Face's layout")
    what.add_argument("--random-shape", choices=RANDOM_SHAPES, help="a model's real shape with random weights; no download")
    parser.add_argument("--prompts", help="JSON list of texts or Alpaca samples; default: random ids")
    parser.add_argument("--samples", type=int, default=10, help="prompts to measure")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="length of random prompts")
    parser.add_argument("--new-tokens", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=1, help="times that every prompt is measured")
    parser.add_argument("--modes", default="eager", help="comma-separated: eager, compile, int8")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="default: every core that this process may use")
    parser.add_argument("--note", help="a sentence to keep in the records, such as what else the machine was doing")
    parser.add_argument("--output", type=Path, help="file of the records; default: stdout")
    parser.add_argument("--texts", type=Path, help="file for the generated ids and texts")
    options = parser.parse_args()
    options.modes = options.modes.split(",")
    for mode in options.modes:
        if mode not in LABELS:
            parser.error(f"--modes: expected {', '.join(LABELS)}; received {mode}")
    if "int8" in options.modes and (options.device, options.dtype) != ("cpu", "f32"):
        parser.error("--modes int8: dynamic quantization runs with --device cpu --dtype f32")
    return options


def measure(generators, prompts, options):
    """
    Warms each mode up with whole requests, then takes the modes in turns, prompt by prompt.
    Returns the first request's ms, (prompt length, new ids, moments) of each measured one, and the most bytes that a GPU
    held while it ran: all by mode.
    """
    warm_up, gpu_bytes = {}, dict.fromkeys(generators, 0)
    for mode, generator in generators.items():
        start = time.perf_counter()
        generator(prompts[0], options.new_tokens)
        warm_up[mode] = 1000 * (time.perf_counter() - start)
        generator(prompts[-1], options.new_tokens)
    measured = {mode: [] for mode in generators}
    for _ in range(options.repeats):
        for prompt in prompts:
            for mode, generator in generators.items():
                if options.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                measured[mode].append((len(prompt), *generator(prompt, options.new_tokens)))
                if options.device == "cuda":
                    gpu_bytes[mode] = max(gpu_bytes[mode], torch.cuda.max_memory_allocated())
    return warm_up, measured, gpu_bytes


def main():
    warnings.simplefilter("ignore")  # renamed arguments: the old names work in every version that this file allows
    options = arguments()
    threads = options.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    torch.set_num_threads(threads)
    model = load_model(options)
    tokenizer = None
    if options.model and (Path(options.model) / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    prompts = prompts_of(options, model.config.vocab_size, tokenizer)
    capacity = max(map(len, prompts)) + options.new_tokens
    models = {mode: dynamic_int8(model) if mode == "int8" else model for mode in options.modes}
    generators = {mode: Generator(mode, own, capacity, options.device) for mode, own in models.items()}
    counters.clear()
    warm_up, measured, gpu_bytes = measure(generators, prompts, options)
    notes = [f"{threads} threads; greedy, end token ignored; own decoding loop, which does less than generate()"]
    if options.note:
        notes.append(options.note)
    if len(options.modes) > 1:
        held = f"a process that held {len(options.modes)} configurations at once, measured in turns"
        bytes_of_all = "peakRssBytes and gpuBytes are" if options.device == "cuda" else "peakRssBytes is"
        notes.append(f"{bytes_of_all} of {held}")
    if options.random_shape:
        notes.append("random weights: only speed and memory mean anything")
    if options.device == "cuda" and "compile" in options.modes:
        notes.append(f"CUDA graphs that were skipped: {counters['inductor']['cudagraph_skips']}")
    shared = {
        "session": uuid.uuid4().hex[:8], "commit": commit(), "machine": machine(options.device),
        "gpuBytes": gpu_bytes,
        # The first request, compilation included: the compiler runs while the model does.
        "compile": {"compilations": counters["stats"]["unique_graphs"], "compileMs": warm_up.get("compile", 0)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "notes": notes,
        "runtime": {"name": "python", "version": platform.python_version(),
                    "packages": {"torch": torch.__version__, "transformers": transformers.__version__}},
    }  # fmt: skip
    records = [record(mode, generators[mode], measured[mode], options, shared) for mode in options.modes]
    text = json.dumps(records, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")
    if options.texts:
        outputs = [
            {"label": LABELS[mode], "promptIds": prompts[i % len(prompts)], "newIds": new,
             "text": tokenizer.decode(new) if tokenizer else None}
            for mode in options.modes for i, (_, new, _) in enumerate(measured[mode])
        ]  # fmt: skip
        options.texts.write_text(json.dumps(outputs, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
