#!/usr/bin/env bash
# Go from a fresh clone to a finetuned model: set-up, data, training, evaluation.
#
#   launch/quickstart.sh [flags of ift train]     e.g. --config.train.steps=2000; ift train --help lists them
#
# It runs in the checkout: a relative path in the flags is relative to it.
set -euo pipefail

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

exec "$(dirname "${BASH_SOURCE[0]}")/local.sh" train \
    --config configs/quickstart.py --workdir runs/quickstart "$@"
