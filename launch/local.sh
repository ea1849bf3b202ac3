#!/usr/bin/env bash
# On this machine, whatever it has: sets up, then runs ift with what makes it fast there.
#
#   launch/local.sh train --config configs/quickstart.py --workdir runs/quickstart
#
#   EXTRAS="cuda12 hf"              extras to set up: tpu or cuda12 for the machine's accelerator
#   DEVICES=8                       that many devices on a CPU, to try a mesh
#
# Runs in the checkout: a relative path in the flags is relative to it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
read -ra extras <<<"${EXTRAS:-}"
"$root/launch/setup.sh" ${extras[@]+"${extras[@]}"}

# XLA on a CPU writes fresh memory all the time; huge pages that are kept between steps make that
# about three times as fast. The C library reads this when the process starts, so Python cannot set
# it; a C library other than glibc ignores it.
if [[ -z ${GLIBC_TUNABLES:-} ]]; then
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
fi
if [[ -n ${DEVICES:-} ]]; then
    export JAX_NUM_CPU_DEVICES=$DEVICES
fi

cd "$root"
exec "$venv/bin/ift" "$@"
