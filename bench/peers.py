# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf==0.19.0", "numpy==2.2.6"]
# ///
"""Writes the GGUF files that node-llama-cpp is measured with; bench/peers.sh calls it.

    python bench/peers.py SMOLLM2.gguf FOLDER

gpt2-*: GPT-2's shape (124M), random weights, made-up tokens. smollm2-*: the file, expanded and quantized again.
Q8_0 and Q4_0 of every matrix, tied head included: the fewest bytes that llama.cpp can read for them.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

KINDS = {
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "Q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
LAYERS, DIM, HEADS, CONTEXT, VOCABULARY = 12, 768, 12, 1024, 50257


def add(writer, name, values, kind):
    """Matrices quantized, vectors and positions as they are."""
    values = values.astype(np.float32)
    if values.ndim == 2 and "position" not in name:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_tokens():
    """Spellings of the 256 bytes in GPT-2's alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def gpt2_tensors():
    rng = np.random.default_rng(11)

    def normal(*shape):
        return 0.02 * rng.standard_normal(shape, dtype=np.float32)

    yield "token_embd.weight", normal(VOCABULARY, DIM)
    yield "position_embd.weight", normal(CONTEXT, DIM)
    norms = ["output_norm"]
    for layer in range(LAYERS):
        parts = {"attn_qkv": (3 * DIM, DIM), "attn_output": (DIM, DIM), "ffn_up": (4 * DIM, DIM), "ffn_down": (DIM, 4 * DIM)}
        for part, shape in parts.items():
            yield f"blk.{layer}.{part}.weight", normal(*shape)
            yield f"blk.{layer}.{part}.bias", np.zeros(shape[0], np.float32)
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for norm in norms:
        yield f"{norm}.weight", np.ones(DIM, np.float32)
        yield f"{norm}.bias", np.zeros(DIM, np.float32)


def write_gpt2(file, kind, file_type):
    writer = GGUFWriter(file, "gpt2")
    writer.add_name("GPT-2 124M shape, random weights")
    writer.add_file_type(file_type)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(4 * DIM)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    known = byte_tokens()
    tokens = [*known, "ab", *(f"token{i}" for i in range(VOCABULARY - len(known) - 2)), "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (VOCABULARY - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(VOCABULARY - 1)
    writer.add_eos_token_id(VOCABULARY - 1)
    for name, values in gpt2_tensors():
        add(writer, name, values, kind)
    finish(writer)


def write_again(source, file, kind, file_type):
    reader = GGUFReader(source)
    writer = GGUFWriter(file, reader.fields["general.architecture"].contents())
    own = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if not name.startswith(own):
            value_type = field.types[0]
            item_type = field.types[-1] if value_type == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), value_type, sub_type=item_type)
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        add(writer, tensor.name, dequantize(tensor.data, tensor.tensor_type), kind)
    finish(writer)


def main():
    source, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True)
    for name, (kind, file_type) in KINDS.items():
        write_gpt2(folder / f"gpt2-{name}.gguf", kind, file_type)
        write_again(source, folder / f"smollm2-{name}.gguf", kind, file_type)


if __name__ == "__main__":
    main()
