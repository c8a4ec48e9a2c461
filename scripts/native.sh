#!/bin/sh
# Builds TensorFlow's own tfjs backend from npm and PyPI alone, because the install script of @tensorflow/tfjs-node
# downloads libtensorflow from a third host and stops working on newer Node.
#
#   npm run native             @tensorflow/tfjs-node      (CPU: about 1 GB, half a minute)
#   npm run native -- gpu      @tensorflow/tfjs-node-gpu  (CUDA: about 5 GB, one to two minutes)
#
# In: a Linux x86-64 machine with glibc, npm, g++ and any python3 with pip (no Python package is installed).
# Out: a folder of its own, <cache>/native/<cpu|gpu>, where lib/backend.ts looks; this project's node_modules, lock
# file and overrides stay as they are. <cache> is what lib/paths.ts calls cacheFolder(). A stopped build leaves nothing.
# Another folder: RESPONSE_TIME_TFJS_NODE=folder/node_modules tells backend.ts.
set -eu

variant=${1:-cpu}
nvidia='nvidia-cublas-cu12==12.9.1.4 nvidia-cuda-cupti-cu12==12.9.79 nvidia-cuda-nvcc-cu12==12.9.86
  nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cudnn-cu12==9.10.2.21
  nvidia-cufft-cu12==11.4.1.4 nvidia-cusolver-cu12==11.7.5.82 nvidia-cusparse-cu12==12.5.10.65
  nvidia-nvjitlink-cu12==12.9.86'
case $variant in
  cpu) package=@tensorflow/tfjs-node wheels='tensorflow-cpu==2.20.0' ;;
  gpu) package=@tensorflow/tfjs-node-gpu wheels="tensorflow==2.20.0 $nvidia" ;;
  *) echo "native: expected cpu or gpu, received '$variant'" >&2; exit 1 ;;
esac
fail() { echo "native: $1" >&2; exit 1; }
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "expected Linux on x86-64, this is $(uname -s) on $(uname -m); use the wasm or webgpu backend"
for tool in npm g++ python3; do command -v "$tool" > /dev/null || fail "$tool is missing: install it and run this again"; done
python3 -m pip --version > /dev/null 2>&1 || fail 'python3 has no pip: install it (Debian: apt-get install python3-pip) and run this again'

# The same rule as cacheFolder() in lib/paths.ts.
cache=${RESPONSE_TIME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/response-time}
mkdir -p "$cache/native"
target=$cache/native/$variant
build=$(mktemp -d "$cache/native/$variant.partial-XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM HUP

echo "native: $package 4.22.0 into $target"
cd "$build"
echo '{ "private": true }' > package.json
npm install --ignore-scripts --no-audit --no-fund --loglevel=error "$package@4.22.0" node-api-headers@1.5.0
cd "node_modules/$package"
rm -rf deps lib
mkdir -p deps lib/napi-v8

# One fixed Python tag, whatever python3 is here: only libraries and C headers of the wheels are kept. TensorFlow finds
# CUDA by its own run path as long as deps/tensorflow and deps/nvidia stay side by side.
platforms=$(for tag in 2014 _2_17 _2_25 _2_27 _2_28; do printf ' --platform manylinux%s_x86_64' "$tag"; done)
# shellcheck disable=SC2086 # both are lists of words
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp $platforms -d deps $wheels
python3 - <<'PYTHON'
import glob, os, zipfile

KEPT = ('nvidia/', 'tensorflow/libtensorflow', 'tensorflow/include/tensorflow/c/', 'tensorflow/include/xla/tsl/c/',
        'tensorflow/include/tensorflow/core/platform/ctstring', 'tensorflow/include/tsl/platform/ctstring')
for path in glob.glob('deps/*.whl'):
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall('deps', [name for name in wheel.namelist() if name.startswith(KEPT)])
    os.remove(path)
for path in glob.glob('deps/nvidia/cuda_nvcc/bin/*'):
    os.chmod(path, 0o755)
PYTHON

# Node-API 8 is stable across Node versions, so one build serves Node 18 and all later ones.
headers=$build/node_modules/node-api-headers/include
# shellcheck disable=SC2016 # $ORIGIN is for the dynamic loader
g++ -std=c++17 -O2 -fPIC -shared -DNAPI_VERSION=8 -DNODE_GYP_MODULE_NAME=tfjs_binding \
  "-I$headers" -Ideps/tensorflow/include binding/*.cc -o lib/napi-v8/tfjs_binding.node \
  -Ldeps/tensorflow -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 '-Wl,-rpath,$ORIGIN/../../deps/tensorflow'

# Two repairs of the package's JavaScript: TensorFlow's round() of int32 gives zeros since 2.17, and Node 23 dropped
# util.isNullOrUndefined and util.isArray.
sed -i "s/return backend.executeSingleInput(tfjs_1.Round, x)/return x.dtype === 'int32' ? x.clone() : backend.executeSingleInput(tfjs_1.Round, x)/" dist/kernels/Round.js
sed -i -E 's/\(0, util_1\.isNullOrUndefined\)\((\w+)\)/(\1 == null)/; s/\(0, util_1\.isArray\)/Array.isArray/' dist/nodejs_kernel_backend.js dist/kernels/TopK.js

cd "$build"
TF_CPP_MIN_LOG_LEVEL=3 node -e "
const tf = require('$package');
const product = tf.matMul(tf.ones([2, 3]), tf.ones([3, 2])).dataSync();
if (tf.getBackend() !== 'tensorflow' || product.join() !== '3,3,3,3') throw new Error('the built binding computes ' + product);
" || fail 'the built binding does not run; nothing was installed'
rm -rf "$target"
mv "$build" "$target"
trap - EXIT
echo "native: done, $(du -sh "$target" | cut -f1). response-time uses it from now on (--backend tensorflow)."
