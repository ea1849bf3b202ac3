#!/usr/bin/env python3
r"""Run a command on GPUs under Slurm, one process for each GPU, requeued until it is done.

    launch/slurm.py sft --nodes 2 --gpus-per-node 8 --partition gpu --time 24:00:00 \
        -- ift train --config configs/tulu3.py:8b --workdir /scratch/me/tulu3

This submits a batch script, which `--dry-run` shows. JAX finds the other processes through Slurm's
variables. Two minutes before the time limit, and when Slurm preempts the job with a grace time,
every process gets SIGTERM and saves; the job then goes back into the queue and resumes from the
newest checkpoint. After `scancel` it saves, too, and ends. The checkout with its environment
(launch/setup.sh cuda12) and the workdir have to be on a file system that all nodes share.
"""

import argparse
import shlex

import arguments
from arguments import at_least, matching
from checkout import ROOT
from command_runner import CommandRunner, LaunchError, run_launcher

# A run that saved exits with 0, so only the signal distinguishes an interruption from the end.
# Slurm sends SIGUSR1 before the time limit (--signal), and at a preemption where the cluster sets
# PreemptParameters=send_user_signal. Otherwise a preemption with a grace time sends SIGTERM, as
# scancel does; then only Slurm knows whether the job was preempted. A job that Slurm puts back into
# the queue by itself (PreemptMode=REQUEUE) needs nothing from this script.
BODY = r"""set -euo pipefail
cd {root}
export PATH={path}:$PATH
{exports}
interrupted=""
step=""
told=""
save() {{
    told=yes
    [[ -z $step ]] || kill -TERM "$step" 2>/dev/null || true
}}
preempted() {{
    [[ $(scontrol show job "$SLURM_JOB_ID") =~ PreemptTime=[0-9] ]]
}}
trap 'save; interrupted=yes' USR1
trap 'save; ! preempted || interrupted=yes' TERM
# Not --gpus-per-task: each process picks the GPU of its local number, so it has to see all of them.
srun --kill-on-bad-exit=1 --wait=60 {step_flags}{command} &
step=$!
# A signal that came before the line above has reached nobody yet.
[[ -z $told ]] || save
while true; do
    code=0
    wait "$step" || code=$?
    kill -0 "$step" 2>/dev/null || break
done
if [[ -n $interrupted ]]; then
    echo "back into the queue, after a preemption or near the time limit"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"""


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments.new_parser(__doc__)
    parser.add_argument("name", type=arguments.job_name, help="the job's name")
    parser.add_argument("--nodes", type=at_least(1), default=1, help="number of nodes (default: 1)")
    parser.add_argument("--gpus-per-node", type=at_least(1), required=True)
    parser.add_argument(
        "--time", type=matching(r"[0-9]+([-:][0-9]+){0,3}", "a time as Slurm writes it")
    )
    slurm_word = matching(r"[A-Za-z0-9][A-Za-z0-9._,&|@:/\[\]=+-]*", "a word as Slurm takes it")
    for flag in ("--partition", "--account", "--qos", "--constraint", "--cpus-per-task", "--mem"):
        parser.add_argument(flag, type=slurm_word, help=f"as in sbatch {flag}")
    parser.add_argument(
        "--output",
        default="%x-%j.log",
        type=matching(r"[A-Za-z0-9._/%-]+", "a file's path"),
        help="the log file (default: %%x-%%j.log, the job's name and number)",
    )
    parser.add_argument(
        "--grace",
        type=at_least(1),
        default=120,
        metavar="SECONDS",
        help="time for saving before the time limit (default: 120)",
    )
    parser.add_argument("--reservation", type=slurm_word, help="as in sbatch --reservation")
    arguments.add_further_flags(parser, "--sbatch-flag", "sbatch")
    arguments.add_job_flags(parser)
    return arguments.parse(parser)


def batch_script(args: argparse.Namespace) -> str:
    """Return the script for sbatch."""
    options = {
        "job-name": args.name,
        "nodes": args.nodes,
        "ntasks-per-node": args.gpus_per_node,
        "gpus-per-node": args.gpus_per_node,
        "time": args.time,
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "constraint": args.constraint,
        "cpus-per-task": args.cpus_per_task,
        "mem": args.mem,
        "reservation": args.reservation,
        "output": args.output,
        "open-mode": "append",
        "signal": f"B:USR1@{args.grace}",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
    lines += [f"#SBATCH {shlex.quote(flag)}" for flag in args.sbatch_flag]
    exports = []
    for variable in args.env:
        key, _, value = variable.partition("=")
        exports.append(f"export {key}={shlex.quote(value)}")
    body = BODY.format(
        root=shlex.quote(str(ROOT)),
        path=shlex.quote(str(ROOT / ".venv" / "bin")),
        exports="\n".join(exports),
        # From Slurm 22.05 to 23.11 srun does not inherit it from sbatch: a process would have one.
        step_flags=f"--cpus-per-task={args.cpus_per_task} " if args.cpus_per_task else "",
        command=shlex.join(args.command),
    )
    return "\n".join(["#!/usr/bin/env bash", *lines, "#SBATCH --requeue", body])


def main() -> int:
    """Submit the job."""
    args = parse()
    runner = CommandRunner(args.dry_run)
    if any("\n" in word for word in [*args.command, *args.env, *args.sbatch_flag]):
        raise LaunchError("an argument with a line break cannot be passed on")
    script = batch_script(args)
    if args.dry_run:
        print(f"sbatch --parsable <<'SCRIPT'\n{script}SCRIPT")
        return 0
    output = runner.run_or_fail(["sbatch", "--parsable"], f"submit {args.name}", stdin=script)
    number = output.strip().partition(";")[0]
    log = args.output.replace("%x", args.name).replace("%j", number)
    runner.note(f"job {number} is in the queue; its log will be {log}; `scancel {number}` ends it")
    return 0


if __name__ == "__main__":
    run_launcher(main)
