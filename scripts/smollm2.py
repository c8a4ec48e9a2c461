# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf==0.19.0", "safetensors==0.5.3", "numpy==2.2.6"]
# ///
"""SmolLM2-135M-Instruct as llama.cpp stores it -> Hugging Face's layout, float16. scripts/smollm2.sh calls it.

    python scripts/smollm2.py SOURCE.gguf FOLDER

Quantized tensors are expanded; llama.cpp's order of rows in the query and key projections, which suits its own rotary
embedding, is undone; config.json and tokenizer.json say what the published ones say.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

TENSORS = 272
LAYERS, DIM, INNER_DIM, HEADS, KV_HEADS, VOCABULARY = 30, 576, 1536, 9, 3, 49152
CONTROL_TOKEN = 3  # in tokenizer.ggml.token_type
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
TOP_NAMES = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}


def name_of(gguf_name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight, and the part that names its kind."""
    first, *rest = gguf_name.split(".")
    if first in TOP_NAMES:
        return TOP_NAMES[first], first
    layer, kind, _ = rest
    return f"model.layers.{layer}.{NAMES[kind]}.weight", kind


def in_halves(weight, heads):
    """Rows of each head from llama.cpp's pairs (0, 1), (2, 3), ... to halves: 0, 2, ... then 1, 3, ..."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors_of(reader):
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name, kind = name_of(tensor.name)
        if kind in ("attn_q", "attn_k"):
            weight = in_halves(weight, HEADS if kind == "attn_q" else KV_HEADS)
        tensors[name] = np.ascontiguousarray(weight.astype(np.float16))
    if len(tensors) != TENSORS:
        raise SystemExit(f"tensors: expected {TENSORS}, found {len(tensors)}: another version of the package?")
    return tensors


def config():
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": DIM,
        "intermediate_size": INNER_DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100000,
        "rope_scaling": None, "max_position_embeddings": 8192, "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.041666666666666664, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "torch_dtype": "float16", "use_cache": True,
    }  # fmt: skip


def tokenizer(tokens, types, merges):
    """Byte-level BPE with single digits, as tokenizers reads it."""
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": tokens[i]} | plain for i, kind in enumerate(types) if kind == CONTROL_TOKEN]
    splits = [{"type": "Digits", "individual_digits": True}, byte_level | {"add_prefix_space": False}]
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits}, "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True}, "model": model,
    }  # fmt: skip


def tokenizer_config(chat_template):
    return {
        "add_prefix_space": False, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "model_max_length": 8192,
        "tokenizer_class": "GPT2Tokenizer", "chat_template": chat_template,
    }  # fmt: skip


def main():
    source, folder = sys.argv[1], Path(sys.argv[2])
    reader = GGUFReader(source)

    def value(key):
        return reader.fields[key].contents()

    folder.mkdir(parents=True)
    save_file(tensors_of(reader), folder / "model.safetensors", metadata={"format": "pt"})
    merges = value("tokenizer.ggml.merges")
    files = {
        "config.json": config(),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        "tokenizer.json": tokenizer(value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type"), merges),
        "tokenizer_config.json": tokenizer_config(value("tokenizer.chat_template")),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
