#!/usr/bin/env bash
# Set up, then check what a commit must pass: lint, format, import rules, types, docs and tests.
#
#   launch/test.sh [EXTRA ...]      without the slow tests
#   launch/test.sh all [EXTRA ...]  with them, as .ci/run does
#
#   EXTRA                           also run the tests that need it, such as reference (torch and transformers)
#   WORKERS=4                       number of processes that share the tests (default: 2)
set -euo pipefail

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
selected=(-m 'not slow')
if [[ ${1:-} == all ]]; then
    selected=()
    shift
fi

failed=""
times=""
step() {
    local name=$1 start=$SECONDS
    printf '\n== %s ==\n' "$name"
    "${@:2}" || failed+="${failed:+, }$name"
    times+=$(printf '%6d s  %s' "$((SECONDS - start))" "$name")$'\n'
}

build_docs() {
    local site status=0
    site=$(mktemp -d "${TMPDIR:-/tmp}/ift-jax-docs.XXXXXX")
    NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict --quiet --site-dir "$site" || status=$?
    rm -rf "$site"
    return "$status"
}

step 'set-up' "$root/launch/setup.sh" test docs "$@"
[[ -z $failed ]] || exit 1
cd "$root"
# Each worker collects all tests and imports what they need. Meanwhile the bytecode of that is compiled, which takes 26
# of 35 CPU seconds in a new environment; otherwise all workers would do it at the same time.
bytecode=""
if [[ -z ${PYTHONDONTWRITEBYTECODE:-} ]]; then
    "$venv/bin/python" -m pytest --collect-only --quiet >/dev/null 2>&1 </dev/null &
    bytecode=$!
fi
step 'lint' "$venv/bin/ruff" check .
step 'format' "$venv/bin/ruff" format --check .
step 'import rules' "$venv/bin/lint-imports"
step 'types' "$venv/bin/mypy"
step 'docs' build_docs
[[ -z $bytecode ]] || wait "$bytecode" || true
# The tests of a file stay in one process: they share its fixtures and what JAX compiled. Files keep the order of
# tests/conftest.py, which puts those with slow tests first, so that no process is left with a long one at the end.
step 'tests' "$venv/bin/python" -m pytest ${selected[@]+"${selected[@]}"} \
    -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder

printf '\n%s' "$times"
if [[ -n $failed ]]; then
    printf '\nerror: failed: %s\n' "$failed" >&2
    exit 1
fi
printf '\nAll passed.\n'
