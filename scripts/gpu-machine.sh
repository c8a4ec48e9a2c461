#!/bin/bash
# Turns a bare Ubuntu or Debian with an NVIDIA driver, a rented GPU or Colab, into a machine that runs the course's
# benchmark on its GPU. Safe to run again: what is there is kept.
#
#   bash scripts/gpu-machine.sh                    install and check
#   bash scripts/gpu-machine.sh run [OPTIONS]      the same, then notebook 05 with these options of `notebook run`, and
#                                                  all results in one archive in the home folder, to take away
#
# Needs: x86-64, root or sudo, 3 GB of disk, the network. It installs, where they are missing: from Ubuntu's or Debian's
# archive curl, ca-certificates, git, xz-utils, libvulkan1 and libglvnd0; Node's official build, checked by its SHA-256,
# if there is none that will do; the project's packages by `npm ci`.
# Environment: NODE_VERSION (22.21.1); NODE_MIRROR (https://nodejs.org/dist); PREFIX (/usr/local) where Node goes;
# REPOSITORY, a git URL to clone where this script is not inside a checkout; CPU_ONLY=1 goes on without a GPU.
set -euo pipefail

node_version=${NODE_VERSION:-22.21.1}
node_mirror=${NODE_MIRROR:-https://nodejs.org/dist}
prefix=${PREFIX:-/usr/local}
say() { echo "gpu-machine: $1"; }
fail() { echo "gpu-machine: $1" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else fail "root is needed for: $*"; fi; }

check_machine() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "expected Linux on x86-64, this is $(uname -s) on $(uname -m)"
  command -v apt-get >/dev/null || fail 'apt-get is missing: this script is for Ubuntu and Debian'
  [ -z "${CPU_ONLY:-}" ] || return 0
  command -v nvidia-smi >/dev/null ||
    fail 'no NVIDIA driver here (nvidia-smi is missing): rent an image with a driver, or install one (Ubuntu: ubuntu-drivers install), restart and run this again'
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader ||
    fail 'the NVIDIA driver does not answer (nvidia-smi failed): is a GPU attached? After an update of the driver the machine has to be restarted'
}

# Packages of the archive that are missing, in one go.
install_packages() {
  local missing=()
  command -v curl >/dev/null || missing+=(curl)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  command -v git >/dev/null || missing+=(git)
  command -v xz >/dev/null || missing+=(xz-utils)
  ldconfig -p | grep -q 'libvulkan\.so\.1' || missing+=(libvulkan1)
  ldconfig -p | grep -q 'libGLdispatch\.so\.0' || missing+=(libglvnd0) # NVIDIA's libraries are built on it
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  as_root apt-get -qq -o APT::Update::Error-Mode=any update ||
    fail 'the archive cannot be reached (apt-get update failed): is there a network? A proxy is named by http_proxy'
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "could not install ${missing[*]}: the lines above say why"
}

# Vulkan finds a GPU by a small file that names the driver's library. Images for computing often lack it.
install_vulkan_driver() {
  local place library
  [ -z "${CPU_ONLY:-}" ] || return 0
  for place in /usr/share/vulkan/icd.d /etc/vulkan/icd.d; do
    ! grep -qs nvidia "$place"/*.json || return 0
  done
  for place in /usr/local/nvidia/share/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
    if [ -e "$place/nvidia_icd.json" ]; then
      as_root mkdir -p /etc/vulkan/icd.d
      as_root ln -sf "$place/nvidia_icd.json" /etc/vulkan/icd.d/nvidia_icd.json
      return 0
    fi
  done
  library=$(ldconfig -p | sed -n 's/.*libGLX_nvidia\.so\.0 .*=> //p' | head -n 1)
  # Colab has the driver's libraries where the loader does not look.
  [ -n "$library" ] || [ ! -e /usr/lib64-nvidia/libGLX_nvidia.so.0 ] || library=/usr/lib64-nvidia/libGLX_nvidia.so.0
  [ -n "$library" ] || fail "the driver has no Vulkan part here (libGLX_nvidia.so.0): install libnvidia-gl of the driver's version ($(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)) and run this again; in a container, start it with NVIDIA_DRIVER_CAPABILITIES=all"
  as_root mkdir -p /etc/vulkan/icd.d
  printf '{ "file_format_version": "1.0.0", "ICD": { "library_path": "%s", "api_version": "1.3.0" } }\n' "$library" |
    as_root tee /etc/vulkan/icd.d/nvidia_icd.json >/dev/null
}

has_node() { command -v node >/dev/null && node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; }

install_node() {
  export PATH=$prefix/bin:$PATH
  ! has_node || return 0
  local name=node-v$node_version-linux-x64 folder url
  url=$node_mirror/v$node_version
  folder=$(mktemp -d)
  say "installing Node $node_version into $prefix"
  curl -fsSL --retry 3 -o "$folder/$name.tar.xz" "$url/$name.tar.xz" -o "$folder/sums" "$url/SHASUMS256.txt" ||
    fail "could not fetch $url/$name.tar.xz: is there a network, and such a version? NODE_MIRROR names another place"
  (cd "$folder" && grep " $name.tar.xz\$" sums | sha256sum -c --status) ||
    fail "$name.tar.xz has another checksum than $url/SHASUMS256.txt says: nothing was installed"
  as_root mkdir -p "$prefix"
  as_root tar -xJf "$folder/$name.tar.xz" -C "$prefix" --strip-components=1 --no-same-owner
  rm -r "$folder"
  has_node || fail "Node $node_version was installed into $prefix, but does not run"
}

# The checkout around this script, else a clone of REPOSITORY beside it.
enter_project() {
  local here
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  if ! grep -qs llm-response-time-optimizer "$here/package.json"; then
    here=$PWD/llm-response-time-optimizer
    [ -d "$here" ] || [ -n "${REPOSITORY:-}" ] || fail 'this script is outside a checkout: name its git URL in REPOSITORY'
    [ -d "$here" ] || git clone -q "$REPOSITORY" "$here" || fail "could not clone $REPOSITORY"
  fi
  cd "$here"
}

install_project() {
  if [ node_modules/.package-lock.json -nt package-lock.json ] && [ -e lib/dist/cli.js ]; then return 0; fi
  say 'npm ci'
  npm ci --no-audit --no-fund --loglevel=error || fail 'npm ci failed: the lines above say why; npm config set registry names a mirror'
}

check_gpu() {
  [ -z "${CPU_ONLY:-}" ] || return 0
  node --input-type=module -e '
    import { selectBackend } from "response-time/backend";
    const { device } = await selectBackend("webgpu").catch((error) => {
      console.error(`gpu-machine: ${error.message}`);
      process.exit(1);
    });
    console.log(`gpu-machine: WebGPU computes on ${device}`);
    process.exit(0);' || fail 'WebGPU finds no GPU: the line above says why; VK_LOADER_DEBUG=all shows what Vulkan tries'
}

run_notebook() {
  local archive
  archive=$HOME/results-$(hostname -s)-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
  npx response-time notebook run --only 05 "$@" || fail 'the notebook did not finish: the cell and its error are above'
  tar -czf "$archive" -C results latest
  say "results: $archive"
  say "take them home:  scp $(id -un)@THIS_MACHINE:$archive .  and there, in the project:  tar -xzf ARCHIVE -C results"
}

command=install
if [ $# -gt 0 ]; then command=$1; shift; fi
case $command in install|run) ;; *) fail "expected install or run, received '$command'" ;; esac
check_machine
install_packages
install_vulkan_driver
install_node
enter_project
install_project
check_gpu
if [ "$command" = run ]; then run_notebook "$@"; else say "ready in $PWD: bash scripts/gpu-machine.sh run"; fi
