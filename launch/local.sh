#!/usr/bin/env bash
# Set up this machine, then run ift on it, with the settings that make it fast on a CPU.
#
#   launch/local.sh train --config configs/quickstart.py --workdir runs/quickstart
#
#   EXTRAS="cuda12 hf"              extras to install: tpu or cuda12 for the machine's accelerator
#   DEVICES=8                       split the CPU into this many devices, to try a mesh
#
# It runs in the checkout: a relative path in the flags is relative to it.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
read -ra extras <<<"${EXTRAS:-}"
"$root/launch/setup.sh" ${extras[@]+"${extras[@]}"}

# XLA on a CPU keeps writing to fresh memory. Huge pages that are kept between steps make that about three times as fast.
# glibc reads this variable when the process starts, so Python cannot set it; other C libraries ignore it.
if [[ -z ${GLIBC_TUNABLES:-} ]]; then
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
fi
if [[ -n ${DEVICES:-} ]]; then
    export JAX_NUM_CPU_DEVICES=$DEVICES
fi

cd "$root"
exec "$venv/bin/ift" "$@"
