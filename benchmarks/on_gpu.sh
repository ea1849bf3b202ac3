#!/usr/bin/env bash
# Check and measure on one NVIDIA GPU, within eight minutes: the attention kernel's equality with the reference, the
# train step of two shapes against transformers, and decoding. The results are one JSON file.
#
#   benchmarks/on_gpu.sh --out results.json [--seconds 480] [--parts attention steps_ours ...] [--tiny]
#
#   PYTHON=python3                  the interpreter; it needs jax[cuda12], flax and optax, for the peer torch,
#                                   transformers and peft
#   WHEELS=folder                   install these wheels first, without a network and outside PYTHON's environment
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h || $# == 0 ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

python=${PYTHON:-python3}
SECONDS=0
seconds=480
arguments=()
while (($#)); do
    if [[ $1 == --seconds && $# -gt 1 ]]; then
        seconds=$2
        shift
    else
        arguments+=("$1")
    fi
    shift
done

site=""
trap '[[ -z $site ]] || rm -rf "$site"' EXIT
if [[ -n ${WHEELS:-} ]]; then
    site=$(mktemp -d "${TMPDIR:-/tmp}/ift-jax-wheels.XXXXXX")
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# The installation of the wheels counts.
"$python" -m benchmarks.on_gpu --seconds "$((seconds - SECONDS))" "${arguments[@]}"
