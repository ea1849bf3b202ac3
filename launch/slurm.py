#!/usr/bin/env python3
r"""Runs a command on GPUs under Slurm: one process a GPU, requeued until it is done.

    launch/slurm.py sft --nodes 2 --gpus-per-node 8 --partition gpu --time 24:00:00 \
        -- ift train --config configs/tulu3_8b.py --workdir /scratch/me/tulu3

submits a batch script, which `--dry-run` shows. JAX finds its peers by Slurm's variables. Two
minutes before the time limit, and when Slurm preempts the job with a grace time, every process gets
SIGTERM and saves; the job goes back into the queue and resumes from the newest checkpoint. The
checkout, with its environment (launch/setup.sh cuda12), and the workdir have to be on a file system
that all nodes share.
"""

import argparse
import shlex

import job
from job import LaunchError, Tools

# SIGTERM reaches this shell, which passes it to srun, and srun to every process. A run that saved
# exits with 0, so the signal itself is what tells "interrupted" from "done".
BODY = r"""set -euo pipefail
cd {root}
export PATH={path}:$PATH
{exports}
interrupted=""
step=""
trap 'interrupted=yes; [[ -z $step ]] || kill -TERM "$step" || true' TERM
# No --gpus-per-task: each process takes the GPU of its local number, and has to see all of them.
srun --kill-on-bad-exit=1 --wait=60 {command} &
step=$!
while true; do
    code=0
    wait "$step" || code=$?
    kill -0 "$step" 2>/dev/null || break
done
if [[ -n $interrupted ]]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", type=job.name, help="of the job")
    add("--nodes", type=job.at_least(1), default=1, help="default: 1")
    add("--gpus-per-node", type=job.at_least(1), required=True)
    add("--time", type=job.text(r"[0-9]+([-:][0-9]+){0,3}", "a time as Slurm writes it"))
    word = job.text(r"[A-Za-z0-9][A-Za-z0-9._,&|@:/\[\]=+-]*", "a word as Slurm takes it")
    for flag in ("--partition", "--account", "--qos", "--constraint", "--cpus-per-task", "--mem"):
        add(flag, type=word)
    add(
        "--output", default="%x-%j.log", help="the log (default: %%x-%%j.log, name and number)",
        type=job.text(r"[A-Za-z0-9._/%-]+", "a file's path"),
    )  # fmt: skip
    add(
        "--grace", type=job.at_least(1), default=120, metavar="SECONDS",
        help="for saving, before the time limit (default: 120)",
    )  # fmt: skip
    job.add_job(parser)
    return job.parse(parser)


def script(args: argparse.Namespace) -> str:
    """The batch script."""
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
        "output": args.output,
        "open-mode": "append",
        "signal": f"B:TERM@{args.grace}",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
    pairs = (variable.partition("=") for variable in args.env)
    body = {
        "root": shlex.quote(str(job.ROOT)),
        "path": shlex.quote(str(job.ROOT / ".venv" / "bin")),
        "exports": "\n".join(f"export {key}={shlex.quote(value)}" for key, _, value in pairs),
        "command": shlex.join(args.command),
    }
    return "\n".join(["#!/usr/bin/env bash", *lines, "#SBATCH --requeue", BODY.format(**body)])


def main() -> int:
    """Submits."""
    args = parse()
    tools = Tools(args.dry_run)
    if any("\n" in word for word in [*args.command, *args.env]):
        raise LaunchError("a line break in an argument cannot be passed on")
    batch = script(args)
    if args.dry_run:
        print(f"sbatch --parsable <<'SCRIPT'\n{batch}SCRIPT")
        return 0
    number = tools.must(["sbatch", "--parsable"], f"submit {args.name}", stdin=batch)
    number = number.strip().partition(";")[0]
    log = args.output.replace("%x", args.name).replace("%j", number)
    tools.note(f"job {number} is in the queue; its log will be {log}; `scancel {number}` ends it")
    return 0


if __name__ == "__main__":
    job.main(main)
