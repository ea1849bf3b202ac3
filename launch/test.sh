#!/usr/bin/env bash
# Set-up with the test extras, then lint, type check, the core tests, and the slow ones.
#
#   launch/test.sh [extra ...]      e.g. reference: also compare with torch and transformers
#
#   WORKERS=4                       processes that share the core tests (default: 2)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
"$root/launch/setup.sh" test "$@"

cd "$root"
failed=""
run() {
    printf '\n== %s ==\n' "$1"
    "$venv/bin/python" -m "${@:2}" || failed+="${failed:+, }$1"
}
run 'lint' ruff check .
run 'format' ruff format --check .
run 'type check' mypy
# A file's tests stay together: they share what its fixtures made and JAX compiled.
run 'core tests' pytest -m 'not slow' -n "${WORKERS:-2}" --dist loadfile
run 'slow tests' pytest -m slow -n "${WORKERS:-2}" --dist loadfile

if [[ -n $failed ]]; then
    printf '\nerror: failed: %s\n' "$failed" >&2
    exit 1
fi
printf '\nAll passed.\n'
