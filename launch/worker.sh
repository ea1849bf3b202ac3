#!/usr/bin/env bash
# On a host of a TPU slice: sets up, and runs a job that outlives the connection that started it.
# launch/tpu_vm.py calls this through ssh; each line of state begins with "ift-job".
#
#   launch/worker.sh setup [extra ...]        the environment, with a Python of its own where the host's is too old
#   launch/worker.sh start JOB COMMAND ...    starts it; does nothing where the same command runs already
#   launch/worker.sh follow JOB BYTES         its log from that byte on, until it ends
#   launch/worker.sh status JOB               running, exited CODE, terminated CODE, stopped CODE, lost or absent
#   launch/worker.sh stop JOB                 SIGTERM, so that it saves; SIGKILL after two minutes
#
#   IFT_JOBS=/some/folder                     logs and states (default: ~/ift_jobs)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${IFT_JOBS:-$HOME/ift_jobs}
venv=${VENV:-$root/.venv}
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || true)

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

suitable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

alive() {
    [[ -s $folder/pid && $(cat "$folder/boot") == "$boot" ]] && kill -0 "$(cat "$folder/pid")" 2>/dev/null
}

status() {
    if alive; then
        printf 'running\n'
    elif [[ -s $folder/result ]]; then
        cat "$folder/result"
    elif [[ -e $folder/command ]]; then
        printf 'lost\n' # The host went down under it, or it was killed outright.
    else
        printf 'absent\n'
    fi
}

report() {
    printf 'ift-job %s %s %s\n' "$job" "$HOSTNAME" "$1"
}

[[ $# -ge 2 || ${1:-} == setup ]] || fail "usage: worker.sh setup | start | follow | status | stop; see ${BASH_SOURCE[0]}"
verb=$1
job=${2:-}
folder=$jobs/$job
case $verb in
    setup)
        shift
        python=""
        for candidate in python3 python3.12 python3.13 python3.11; do
            if suitable "$candidate"; then
                python=$candidate
                break
            fi
        done
        if [[ -z $python ]]; then
            # Images with Ubuntu 22.04 have Python 3.10, those with 24.04 lack ensurepip. uv brings a whole
            # Python into the home folder, with neither root nor the package manager's lock.
            [[ -x $HOME/.local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
            "$HOME/.local/bin/uv" python install 3.12
            python=$("$HOME/.local/bin/uv" python find 3.12)
        fi
        PYTHON=$python VENV=$venv "$root/launch/setup.sh" "$@"
        ;;
    start)
        shift 2
        mkdir -p "$folder"
        if alive; then
            printf '%s\0' "$@" | cmp -s - "$folder/command" ||
                fail "the job $job runs another command on $HOSTNAME; stop it first"
        else
            rm -f "$folder/result" "$folder/stopped" "$folder/pid"
            printf '%s\0' "$@" >"$folder/command"
            printf '%s\n' "$boot" >"$folder/boot"
            # A session of its own, so that the end of the connection does not reach it.
            setsid nohup "${BASH_SOURCE[0]}" run "$job" "$@" >>"$folder/log" 2>&1 </dev/null &
            printf '%s\n' "$!" >"$folder/pid"
        fi
        report started
        ;;
    run)
        shift 2
        ended=exited
        child=""
        trap 'ended=terminated; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
        cd "$root"
        PATH=$venv/bin:$PATH "$@" &
        child=$!
        # A signal ends `wait` early; the child may save for a while yet.
        while true; do
            code=0
            wait "$child" || code=$?
            kill -0 "$child" 2>/dev/null || break
        done
        # After SIGTERM a run that saved exits with 0 and is not finished: the two are told apart here.
        [[ ! -e $folder/stopped ]] || ended=stopped
        printf '%s %s\n' "$ended" "$code" >"$folder/result.part"
        mv "$folder/result.part" "$folder/result"
        ;;
    follow)
        [[ -e $folder/log ]] || fail "there is no job $job on $HOSTNAME"
        if alive; then
            tail -c "+$(($3 + 1))" --pid="$(cat "$folder/pid")" --sleep-interval=1 -f "$folder/log"
        else
            tail -c "+$(($3 + 1))" "$folder/log"
        fi
        ;;
    status)
        report "$(status)"
        ;;
    stop)
        if alive; then
            touch "$folder/stopped"
            pid=$(cat "$folder/pid")
            kill -TERM "$pid"
            timeout 120 tail --pid="$pid" --sleep-interval=1 -f /dev/null || kill -KILL -- "-$pid" || true
        fi
        report "$(status)"
        ;;
    *)
        fail "unknown: $verb"
        ;;
esac
