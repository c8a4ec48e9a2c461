# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "transformers>=4.57", "onnx==1.23.2", "onnx-ir==1.1.0", "onnxruntime==1.32.0", "onnxruntime-genai==0.18.0"]
# ///
"""SmolLM2 as transformers.js reads it: ONNX with dynamic INT8 matrices ("q8"); bench/peers.sh calls it.

    python bench/peersOnnx.py MODEL_FOLDER FOLDER

Built by ONNX Runtime's own model builder (fused attention over the cache) and quantized by ONNX Runtime's own tool, one
scale an output channel: the files on the hub are made from transformers' graph, with the same quantization.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

KEPT = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def name_head_dim(file, head_dim):
    """transformers.js makes the empty cache by the model's input shapes, and takes a dimension with a name for 0."""
    model = onnx.load(file)
    for value in [*model.graph.input, *model.graph.output]:
        if value.name.startswith(("past_key_values", "present")):
            value.type.tensor_type.shape.dim[3].dim_value = head_dim
    onnx.save(model, file)


def main():
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    built = folder / "built"
    builder = ["onnxruntime_genai.models.builder", "-i", source, "-o", built, "-p", "fp32", "-e", "cpu"]
    subprocess.run([sys.executable, "-m", *builder, "-c", folder / "cache"], check=True, capture_output=True)
    (folder / "onnx").mkdir()
    for name in KEPT:
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text())
    target = folder / "onnx" / "model_quantized.onnx"
    quantize_dynamic(built / "model.onnx", target, per_channel=True, reduce_range=False, weight_type=QuantType.QInt8)
    name_head_dim(target, config["hidden_size"] // config["num_attention_heads"])
    shutil.rmtree(built)
    shutil.rmtree(folder / "cache", ignore_errors=True)


if __name__ == "__main__":
    main()
