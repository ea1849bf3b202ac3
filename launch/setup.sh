#!/usr/bin/env bash
# Create the virtual environment with the tested package versions; do nothing if it is complete.
#
#   launch/setup.sh [EXTRA ...]     extras of pyproject.toml: test, docs, reference, plan, beam, gcs, hf, gguf, dedup, ifeval, lm-eval, wandb, mlflow, trackio, serve, tpu, cuda12
#
#   PYTHON=python3.12               the interpreter (default: the first suitable one on the PATH)
#   VENV=/some/folder               the environment (default: .venv in the checkout)
#   WHEEL=ift_jax-....whl           install this wheel instead of the checkout
#
# uv installs the packages: the one on the PATH, else a pinned one that is first installed into the environment.
set -euo pipefail

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
wheel=${WHEEL:-}
[[ -z $wheel || $wheel == /* ]] || wheel=$PWD/$wheel
stamp=$venv/ift-setup.txt # Line 1: a hash of everything that determines the set-up. Line 2: the installed extras.
log=$venv/ift-setup.log

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Print the version as "3.12"; fail if the interpreter does not run.
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

# Print the first interpreter with a supported version.
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

# Create the environment unless it works already and has the version of PYTHON, if that is set.
make_environment() {
    local current python
    current=$(minor_version "$venv/bin/python" || true)
    if [[ -n ${PYTHON:-} && $(minor_version "$PYTHON" || true) != "$current" ]]; then
        current=""
    fi
    if constraints_for "$current" >/dev/null; then
        return
    fi
    python=$(find_python)
    current=$(minor_version "$python")
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module (Debian, Ubuntu: apt install python$current-venv)"
    printf 'Creating %s with Python %s\n' "$venv" "$current"
    "$python" -m venv --clear "$venv" || fail "$python could not create the environment $venv"
}

# Print the checkout whose code the environment runs, if it is another one than this.
other_checkout() {
    [[ -x $venv/bin/python ]] || return 0
    "$venv/bin/python" - "$root" 2>/dev/null <<'PYTHON' || true
import importlib.metadata, json, pathlib, sys, urllib.parse, urllib.request

record = importlib.metadata.distribution("ift-jax").read_text("direct_url.json") or "{}"
origin = json.loads(record)
if origin.get("dir_info", {}).get("editable"):
    path = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlparse(origin["url"]).path))
    if (path / "pyproject.toml").exists() and path.resolve() != pathlib.Path(sys.argv[1]).resolve():
        print(path)
PYTHON
}

# Hash everything that determines the set-up: the dependencies, their versions, the folder, the wheel.
fingerprint() {
    "$venv/bin/python" - "$root" "$root/pyproject.toml" "$constraints" ${wheel:+"$wheel"} <<'PYTHON'
import hashlib, pathlib, sys

root, *files = sys.argv[1:]
parts = [pathlib.Path(file).read_bytes() for file in files] + [root.encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
}

# Print pip's indexes and folders of wheels as variables of uv, one "NAME VALUE" a line.
pip_settings() {
    "$venv/bin/python" - <<'PYTHON'
import ast, subprocess, sys

VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
pip = [sys.executable, "-m", "pip", "config", "list"]
lines = subprocess.run(pip, capture_output=True, text=True).stdout.splitlines()
settings = {}
for section in ("global.", "install.", ":env:."):  # As in pip, a later one overrides an earlier one.
    for line in lines:
        key, _, value = line.partition("=")
        name = key.removeprefix(section)
        if key.startswith(section) and name in VARIABLES:
            settings[name] = ast.literal_eval(value).split()
for name, words in settings.items():
    separator = "," if name == "find-links" else " "
    print(VARIABLES[name], separator.join(words))
if "extra-index-url" in settings:
    # pip takes the best version of all indexes; uv by default stops at the first that has the package.
    print("UV_INDEX_STRATEGY", "unsafe-best-match")
PYTHON
}

# uv ignores the configuration of pip. Hand it over, so that a machine with a mirror or a folder of wheels needs no
# second configuration. A variable that is already set for uv wins.
export_pip_settings() {
    local name value
    while read -r name value; do
        [[ -n ${!name:-} ]] || export "$name=$value"
    done < <(pip_settings)
}

# Run an installer with its output in the log. A terminal shows one changing line, a log file nothing.
install() {
    local line
    "$@" 2>&1 | tee -a "$log" | while IFS= read -r line; do
        [[ ! -t 1 ]] || printf '\r\033[K  %.76s' "${line#"${line%%[![:space:]]*}"}"
    done || explain_failure
    [[ ! -t 1 ]] || printf '\r\033[K'
}

explain_failure() {
    local first last network="NewConnectionError|NameResolutionError|ConnectTimeout|Retrying \(Retry|ProxyError"
    network+="|error sending request|dns error|operation timed out|Network connectivity is disabled"
    [[ ! -t 1 ]] || printf '\r\033[K'
    if grep -qE "$network" "$log"; then
        fail "packages could not be downloaded: is there a network? The installer's output is in $log"
    fi
    first=$(grep -m 1 -iE '^error: ' "$log" || true)
    last=$(tail -n 1 "$log")
    first=${first#*: }
    last=${last#*cause: }
    [[ $last != *"$first"* ]] || first=""
    fail "the packages could not be installed: ${first:+$first: }$last; the whole output is in $log"
}

# An unknown extra would otherwise only be a warning in the log.
check_extras() {
    "$venv/bin/python" - "$root/pyproject.toml" "$@" <<'PYTHON'
import pathlib, sys, tomllib

path, *wanted = sys.argv[1:]
known = tomllib.loads(pathlib.Path(path).read_text())["project"]["optional-dependencies"]
for extra in wanted:
    if extra not in known:
        sys.exit(f"error: there is no extra {extra}; pyproject.toml has {', '.join(sorted(known))}")
PYTHON
}

other=$(other_checkout)
[[ -z $other ]] || fail "$venv is the environment of the checkout $other, which would then run the code of $root: \
set VENV to another folder, or delete $venv"
make_environment
current=$(minor_version "$venv/bin/python")
constraints=$(constraints_for "$current")
wanted=$(fingerprint)
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
check_extras "$@"
extras=$(printf '%s\n' "$installed" "$@" | tr ' ' '\n' | sort -u | xargs)
rm -f "$stamp" "$log" # Without a stamp, an interrupted set-up counts as incomplete.

printf 'Installing the tested packages (%s) into %s: about 3 GB, a minute or more\n' "${constraints##*/}" "$venv"
uv=$(command -v uv || true)
if [[ -z $uv ]] || ! "$uv" --version >/dev/null 2>&1; then
    uv=$venv/bin/uv
    install "$venv/bin/python" -m pip install --disable-pip-version-check --constraint "$constraints" uv
fi
export_pip_settings
if [[ -n $wheel ]]; then
    targets=("$wheel${extras:+[${extras// /,}]}")
else
    targets=(--editable "$root${extras:+[${extras// /,}]}")
fi
# By default uv leaves it to the first import to compile a module. Where Python may not write the result, every start of
# ift would compile all of it again, which triples the time for JAX, Flax and Orbax (from 1.3 s to 4.1 s).
if [[ -n ${PYTHONDONTWRITEBYTECODE:-} ]]; then
    export UV_COMPILE_BYTECODE=${UV_COMPILE_BYTECODE:-1}
fi
# editdistance has no wheel for Python 3.13; that folder explains.
[[ $current != 3.13 ]] || targets+=("$root/launch/editdistance")
install "$uv" pip install --python "$venv/bin/python" \
    --constraint "$constraints" --build-constraint "$constraints" "${targets[@]}"
printf '%s\n%s\n' "$wanted" "$extras" >"$stamp"
