"""Everything that is measured on a GPU, part by part, within a budget; see `benchmarks/on_gpu.sh`.

    python -m benchmarks.on_gpu --out results.json [--seconds 480] [--parts attention decode_ours]

Each part is a process of its own, which prints a JSON object for each thing that it has measured.
A part that fails or runs out of its time loses nothing of what it or another part had printed; what
a part leaves of its time, the later ones have. The file is written anew after each part.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.alternate import OURS

REPO = Path(__file__).parents[1]
LOG_LINES = 30  # The end of a failed part's log, which the file keeps.


class Part(NamedTuple):
    """A process, and the seconds that it may take."""

    name: str
    arguments: tuple[str, ...]  # After `python -m`.
    seconds: float
    environment: dict[str, str] = {}


# torch's processes count FLOPs with our model; JAX must not take the GPU's memory for that.
_ON_CPU = {"JAX_PLATFORMS": "cpu"}
PARTS = (
    Part("attention", ("benchmarks.gpu.attention",), 100),
    Part("steps_ours", ("benchmarks.gpu.steps", "--side", OURS), 120),
    Part("steps_torch", ("benchmarks.gpu.steps", "--side", "torch"), 120, _ON_CPU),
    Part("decode_ours", ("benchmarks.gpu.decoding", "--side", OURS), 50),
    Part("decode_torch", ("benchmarks.gpu.decoding", "--side", "torch"), 50, _ON_CPU),
)
Results = dict[str, Any]


def run_part(part: Part, seconds: float) -> Results:
    """Run a part; end it after so many seconds.

    Returns:
        "status": "done", "out of time", "failed with exit code N" or "not started"; "seconds";
        "records", the objects that it printed; "log", the end of what else it wrote, if it failed.
    """
    if seconds <= 0:
        return {"status": "not started: no time is left", "seconds": 0.0, "records": []}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *part.arguments],
        cwd=REPO,
        env={**os.environ, **part.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    status = "done"
    try:
        output, log = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        status = "out of time"
        os.killpg(process.pid, signal.SIGKILL)  # Compilers that it started end with it.
        output, log = process.communicate()
    if status == "done" and process.returncode:
        status = f"failed with exit code {process.returncode}"
    records, other_lines = read_records(output)
    results = {"status": status, "seconds": round(time.monotonic() - start, 1), "records": records}
    if status != "done":
        results["log"] = [*other_lines, *log.splitlines()][-LOG_LINES:]
    return results


def read_records(output: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the objects among the lines of a part's output, and the other lines."""
    records, others = [], []
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # A library's line, or one that the part was writing when it was ended.
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            others.append(line)
    return records, others


def run_parts(
    parts: Sequence[Part], seconds: float, write: Callable[[dict[str, Results]], None]
) -> dict[str, Results]:
    """Run the parts one after the other, within the seconds of all.

    Args:
        parts: Their own seconds add up: what one leaves, the next ones have.
        seconds: The limit of all parts together.
        write: Is called with the results so far, after each part.
    """
    start = time.monotonic()
    results: dict[str, Results] = {}
    until = 0.0
    for part in parts:
        until += part.seconds
        left = min(until, seconds) - (time.monotonic() - start)
        print(f"{part.name}: at most {max(left, 0):.0f} s", file=sys.stderr, flush=True)
        results[part.name] = run_part(part, left)
        print(f"{part.name}: {results[part.name]['status']}", file=sys.stderr, flush=True)
        write(results)
    return results


# --- The summary ---


def summarize(results: dict[str, Results]) -> dict[str, Any]:
    """Return what the parts found: the attention's cases, and our figures beside the best peer's.

    A figure that was not measured is null. MFU is the model's FLOPs over the highest peak that was
    measured, on either side.
    """
    records = [record for part in results.values() for record in part["records"]]
    cases = [record for record in records if "case" in record]
    peak_tflops = max((record.get("peak_tflops", 0) for record in records), default=0)
    steps = [record for record in records if "supervised_tokens_per_second" in record]
    for step in steps:
        step["mfu"] = round(step["model_tflops"] / peak_tflops, 4) if peak_tflops else None
    decoding = [record for record in records if "batch" in record and "tokens_per_second" in record]
    return {
        "attention": {
            "cases": len(cases),
            "wrong": [f"{r['case']}, {r['dtype']}" for r in cases if not r.get("ok")],
        },
        "peak_tflops": peak_tflops or None,
        "steps": beside_best(steps, ("shape", "length", "lora"), "supervised_tokens_per_second"),
        "decoding": beside_best(decoding, ("shape", "batch"), "tokens_per_second"),
        "errors": [record for record in records if "error" in record],
        "parts": {name: part["status"] for name, part in results.items()},
    }


def beside_best(
    records: Iterable[dict[str, Any]], keys: Sequence[str], rate: str
) -> list[dict[str, Any]]:
    """Return for each work our record, the fastest of the peer's, and the ratio of their rates."""
    by_work: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for record in records:
        sides = by_work.setdefault(tuple(record[key] for key in keys), {})
        best = sides.get(record["side"])
        if best is None or record[rate] > best[rate]:
            sides[record["side"]] = record
    rows = []
    for work, sides in by_work.items():
        ours, best_peer = sides.get(OURS), sides.get("torch")
        ratio = round(ours[rate] / best_peer[rate], 3) if ours and best_peer else None
        named = dict(zip(keys, work, strict=True))
        rows.append({**named, "ours": ours, "best_peer": best_peer, "ratio": ratio})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the parts; return 0 if all came to their end and no attention was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=480, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try it on a CPU")
    args = parser.parse_args(argv)
    if args.tiny:
        os.environ["JAX_PLATFORMS"] = "cpu"
    more = ("--tiny",) if args.tiny else ()
    parts = [
        part._replace(arguments=part.arguments + more) for part in PARTS if part.name in args.parts
    ]

    def write(results: dict[str, Results]) -> None:
        text = json.dumps({"summary": summarize(results), "parts": results}, indent=1)
        temporary = args.out.with_suffix(".writing")
        temporary.write_text(text + "\n")
        temporary.replace(args.out)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    summary = summarize(run_parts(parts, args.seconds, write))
    print(json.dumps(summary, indent=1))
    all_done = all(status == "done" for status in summary["parts"].values())
    return 0 if all_done and not summary["attention"]["wrong"] and not summary["errors"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
