#!/usr/bin/env bash
# Set up a host of a TPU slice, and run a job that outlives the connection that started it.
# launch/tpu_vm.py calls this through ssh; each line that reports a state begins with "ift-job".
#
#   launch/worker.sh setup [EXTRA ...]        create the environment, with uv's Python if the host has no suitable one
#   launch/worker.sh start JOB COMMAND ...    start the job; do nothing if the same command is already running
#   launch/worker.sh follow JOB BYTES         print its log from that byte on, until it ends
#   launch/worker.sh status JOB               print running, exited CODE, terminated CODE, stopped CODE, lost or absent
#   launch/worker.sh stop JOB                 send SIGTERM, so that it saves; SIGKILL after two minutes
#
#   IFT_JOBS=/some/folder                     where logs and states are (default: ~/ift_jobs)
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" # The comment above.
    exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${IFT_JOBS:-$HOME/ift_jobs}
venv=${VENV:-$root/.venv}
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || true)

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Tell whether launch/setup.sh can use this Python.
suitable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

# Tell whether the job's process is running: not one with its number after a restart of the host, and not a zombie, which
# some containers keep.
alive() {
    local pid stat
    [[ -s $folder/pid && $(cat "$folder/boot") == "$boot" ]] || return 1
    pid=$(cat "$folder/pid")
    kill -0 "$pid" 2>/dev/null && read -r stat 2>/dev/null <"/proc/$pid/stat" && [[ ${stat##*) } != Z* ]]
}

status() {
    if alive; then
        printf 'running\n'
    elif [[ -s $folder/result ]]; then
        cat "$folder/result"
    elif [[ -e $folder/command ]]; then
        printf 'lost\n' # The host went down, or the job was killed with SIGKILL.
    else
        printf 'absent\n'
    fi
}

report() {
    printf 'ift-job %s %s %s\n' "$job" "$HOSTNAME" "$1"
}

set_up() {
    local candidate python=""
    for candidate in python3 python3.12 python3.13 python3.11; do
        if suitable "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [[ -z $python ]]; then
        # TPU images with Ubuntu 22.04 have Python 3.10, and those with 24.04 lack ensurepip. uv installs a Python
        # into the home folder, which needs neither root nor the package manager's lock.
        PATH=$HOME/.local/bin:$PATH
        command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
        uv python install 3.12
        python=$(uv python find 3.12)
    fi
    PYTHON=$python VENV=$venv "$root/launch/setup.sh" "$@"
}

start() {
    mkdir -p "$folder"
    if alive; then
        printf '%s\0' "$@" | cmp -s - "$folder/command" ||
            fail "job $job is already running another command on $HOSTNAME; stop it first"
        return
    fi
    rm -f "$folder/result" "$folder/stopped" "$folder/pid"
    printf '%s\0' "$@" >"$folder/command"
    printf '%s\n' "$boot" >"$folder/boot"
    # In a new session, so that the end of the connection does not reach the job.
    setsid nohup "${BASH_SOURCE[0]}" run "$job" "$@" >>"$folder/log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$folder/pid"
}

# Run the command in the checkout, which holds tasks/ and configs/, and record how it ended.
run() {
    local code child="" ended=exited
    trap 'ended=terminated; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
    cd "$root"
    PATH=$venv/bin:$PATH "$@" &
    child=$!
    # A signal that came before the line above has reached nobody yet.
    [[ $ended == exited ]] || kill -TERM "$child" 2>/dev/null || true
    # A signal ends `wait` early, while the child may still be saving.
    while true; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    # A run that saved after SIGTERM exits with 0, too, but it is not finished: record the difference.
    [[ ! -e $folder/stopped ]] || ended=stopped
    printf '%s %s\n' "$ended" "$code" >"$folder/result.part"
    mv "$folder/result.part" "$folder/result"
}

follow() {
    local watcher
    [[ -e $folder/log ]] || fail "there is no job $job on $HOSTNAME"
    if ! alive; then
        tail -c "+$(($1 + 1))" "$folder/log"
        return
    fi
    # Not --pid with the job's process: as a zombie it would keep tail waiting.
    while alive; do sleep 0.2; done &
    watcher=$!
    trap "kill $watcher 2>/dev/null || true" EXIT
    tail -c "+$(($1 + 1))" --pid="$watcher" --sleep-interval=0.2 -f "$folder/log"
}

stop() {
    local pid tries
    alive || return 0
    touch "$folder/stopped"
    pid=$(cat "$folder/pid")
    kill -TERM "$pid"
    for ((tries = 0; tries < 600; tries++)); do
        alive || return 0
        sleep 0.2
    done
    kill -KILL -- "-$pid" || true
}

[[ $# -ge 2 || ${1:-} == setup ]] || fail "usage: worker.sh setup | start | follow | status | stop; see ${BASH_SOURCE[0]}"
verb=$1
shift
if [[ $verb == setup ]]; then
    set_up "$@"
    exit
fi
job=$1
folder=$jobs/$job
shift
case $verb in
    start)
        start "$@"
        report started
        ;;
    run) run "$@" ;; # What `start` leaves behind in the new session.
    follow) follow "$@" ;;
    status) report "$(status)" ;;
    stop)
        stop
        report "$(status)"
        ;;
    *) fail "unknown verb: $verb" ;;
esac
