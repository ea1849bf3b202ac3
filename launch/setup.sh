#!/usr/bin/env bash
# Makes the virtual environment with the versions that were tested; does nothing where it is complete.
#
#   launch/setup.sh [extra ...]     extras of pyproject.toml: test, reference, plan, beam, gcs, hf, gguf, tpu, cuda12
#
#   PYTHON=python3.12               the interpreter to use (default: the first suitable one)
#   VENV=/some/folder               the environment (default: .venv in the checkout)
#   WHEEL=ift_jax-....whl           a wheel to install instead of the checkout
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
stamp=$venv/ift-setup.txt # Line 1: a hash of what determines the set-up; line 2: extras installed.
log=$venv/ift-setup.log

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Prints the version as "3.12"; fails where the interpreter does not run.
minor_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

constraints_for() {
    case $1 in
        3.11) printf '%s\n' "$root/launch/constraints/py311.txt" ;;
        3.12 | 3.13) printf '%s\n' "$root/launch/constraints/py312.txt" ;;
        *) return 1 ;;
    esac
}

# Prints the first interpreter that this project runs on.
find_python() {
    local candidate version seen="" candidates=(python3 python3.12 python3.13 python3.11)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        version=$(minor_version "$candidate") || continue
        if constraints_for "$version" >/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        seen+=" $candidate is $version;"
    done
    fail "Python 3.11, 3.12 or 3.13 is needed:${seen:- ${PYTHON:-python3} does not run;} set PYTHON=/path/to/python3.12"
}

# An environment that works is kept, unless PYTHON asks for another version.
current=$(minor_version "$venv/bin/python" || true)
if [[ -n $current && -n ${PYTHON:-} && $(minor_version "$PYTHON" || true) != "$current" ]] ||
    ! constraints_for "$current" >/dev/null; then
    current=""
fi
if [[ -z $current ]]; then
    python=$(find_python)
    current=$(minor_version "$python")
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module (Debian, Ubuntu: apt install python$current-venv)"
    printf 'Making %s with Python %s\n' "$venv" "$current"
    "$python" -m venv --clear "$venv" || fail "$python could not make the environment $venv"
fi
constraints=$(constraints_for "$current")

wheel=${WHEEL:-}
[[ -z $wheel || $wheel == /* ]] || wheel=$PWD/$wheel
wanted=$("$venv/bin/python" - "$root" "$root/pyproject.toml" "$constraints" ${wheel:+"$wheel"} <<'PYTHON'
import hashlib, pathlib, sys

root, *files = sys.argv[1:]
parts = [pathlib.Path(file).read_bytes() for file in files] + [root.encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
)
installed=""
if [[ -f $stamp ]]; then
    { read -r found && read -r installed; } <"$stamp" || true
    if [[ $found == "$wanted" ]]; then
        missing=""
        for extra in "$@"; do
            [[ " $installed " == *" $extra "* ]] || missing=yes
        done
        [[ -n $missing ]] || exit 0
    fi
fi
extras=$(printf '%s\n' "$installed" "$@" | tr ' ' '\n' | sort -u | xargs)
rm -f "$stamp" # Cut off from here on, the environment counts as incomplete.

# One changing line in a terminal, nothing in a log file.
progress() {
    local line
    while IFS= read -r line; do
        case $line in
            Collecting* | *Downloading* | Installing*)
                [[ ! -t 1 ]] || printf '\r\033[K  %.76s' "${line#"${line%%[![:space:]]*}"}"
                ;;
        esac
    done
    [[ ! -t 1 ]] || printf '\r\033[K'
}

printf 'Installing the tested packages (%s) into %s: about 3 GB, some minutes\n' \
    "${constraints##*/}" "$venv"
# The environment variables hold the constraints for packages that are built from source, too.
# pip splits them at spaces, so the path is relative.
cd "$root"
export PIP_CONSTRAINT=${constraints#"$root/"} PIP_BUILD_CONSTRAINT=${constraints#"$root/"}
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [[ -n $wheel ]]; then
    targets=("$wheel${extras:+[${extras// /,}]}")
else
    targets=(--editable "$root${extras:+[${extras// /,}]}")
fi
# It has no wheel for 3.13; see there.
[[ $current != 3.13 ]] || targets+=("$root/launch/editdistance")
if ! "$venv/bin/python" -m pip install --progress-bar off "${targets[@]}" 2>&1 |
    tee "$log" | progress; then
    if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|Retrying \(Retry|ProxyError' "$log"; then
        fail "packages could not be downloaded: is there a network? pip's output is in $log"
    fi
    reason=$(grep -E '^ERROR:' "$log" | tail -n 1 || true)
    fail "pip could not install the packages: ${reason:-no reason given}; its output is in $log"
fi
printf '%s\n%s\n' "$wanted" "$extras" >"$stamp"
