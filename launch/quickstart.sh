#!/usr/bin/env bash
# From a fresh clone to a finetuned model: set-up, data, training, evaluation.
#
#   launch/quickstart.sh [flags of ift train]     e.g. --config.train.epochs=2
#
# Runs in the checkout: a relative path in the flags is relative to it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
"$root/launch/setup.sh"

# XLA on a CPU writes fresh memory all the time; huge pages that are kept between steps make that
# about three times as fast. The C library reads this when the process starts, so Python cannot set
# it; a C library other than glibc ignores it.
if [[ -z ${GLIBC_TUNABLES:-} ]]; then
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
fi

cd "$root"
exec "$venv/bin/ift" train --config configs/quickstart.py --workdir runs/quickstart "$@"
