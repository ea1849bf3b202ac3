"""What is measured on a GPU, tried without one: tiny shapes on a CPU, and the budgets of the parts.

`benchmarks/on_gpu.sh` runs in few minutes that cannot be had again, so its logic must not fail
there.
"""

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import on_gpu
from benchmarks.gpu import attention, decoding, steps
from ift_jax.training import throughput

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "on_gpu.sh"


def printed(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_kernels_cases_are_compared_in_both_dtypes(capsys):
    attention.main(["--tiny"])
    first, *cases = printed(capsys)
    assert first["platform"] == "cpu"
    assert [(case["case"], case["dtype"]) for case in cases] == [
        (name, dtype) for dtype in ("bfloat16", "float32") for name in ("packed", "window")
    ]
    for case in cases:
        assert case["ok"] and case["padding_is_zero"]
        assert set(case["errors"]) == {"output", "dq", "dk", "dv"}
        limit = 1e-5 if case["dtype"] == "float32" else attention.BOUNDS["bfloat16"]
        assert 0 < max(case["errors"].values()) < limit


def test_a_wrong_mask_is_far_outside_the_bound(monkeypatch):
    from tests.models.attention import run_attention

    right = run_attention.output_and_gradients

    def wrong(implementation, *arguments, window, **options):
        window = window - 1 if implementation == attention.KERNEL else window
        return right(implementation, *arguments, window=window, **options)

    monkeypatch.setattr(run_attention, "output_and_gradients", wrong)
    found = attention.check(attention.TINY_CASES[1], "bfloat16")
    assert not found["ok"] and found["errors"]["output"] > 4 * found["bound"]
    assert attention.relative_error(np.array([np.nan]), np.ones(1)) == float("inf")


@functools.cache
def records_of(side):
    """What the parts of a side print, for the steps and for decoding."""
    if side == "torch":
        pytest.importorskip("peft", reason="the extra `reference` is the peer")
    printed_lines = []
    for part in (steps, decoding):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            part.main(["--side", side, "--tiny"])
        printed_lines.append([json.loads(line) for line in output.getvalue().splitlines()])
    return printed_lines


@pytest.fixture
def known_peak(monkeypatch):
    """No product of large matrices is timed."""
    monkeypatch.setattr(throughput, "measure_peak_flops", lambda dtype: 1e12)


@pytest.mark.parametrize("side", ["ift_jax", "torch"])
def test_a_side_of_the_steps_and_of_decoding_runs_on_a_cpu(side, known_peak):
    of_steps, of_decoding = records_of(side)
    assert not [record for record in of_steps + of_decoding if "error" in record]
    measured = [record for record in of_steps if "seconds" in record]
    assert len(measured) == (2 if side == "ift_jax" else 4)  # Full and LoRA; all or some positions.
    for record in measured:
        # Two rows of 48 tokens; the last 60% of examples of 20, 15 and 13 are trained.
        ratio = record["supervised_tokens_per_second"] / record["tokens_per_second"]
        assert ratio == pytest.approx(29 / 48)
        assert record["model_tflops"] > 0 and np.isfinite(record["loss"])
    assert [record["batch"] for record in of_decoding] == [1, 2]
    assert all(record["tokens_per_second"] > 0 for record in of_decoding)


def test_both_sides_have_the_same_work(known_peak):
    records = [part for side in ("ift_jax", "torch") for part in records_of(side)]
    results = {str(i): {"status": "done", "records": part} for i, part in enumerate(records)}
    summary = on_gpu.summarize(results)
    assert [(row["length"], row["lora"]) for row in summary["steps"]] == [(48, False), (48, True)]
    for row in summary["steps"]:
        assert row["ratio"] > 0 and row["ours"]["mfu"] >= 0 and row["best_peer"]["mfu"] >= 0
        # Random weights, and random targets: both losses are near that of guessing.
        assert row["ours"]["loss"] == pytest.approx(row["best_peer"]["loss"], abs=0.3)
    assert [row["batch"] for row in summary["decoding"]] == [1, 2]


def test_the_faster_peer_is_the_one_compared_with():
    step = {"shape": "s", "length": 1, "lora": False, "model_tflops": 20.0}
    rate = "supervised_tokens_per_second"
    records = [
        {"peak_tflops": 100.0},
        {**step, "side": "torch", "attention": "sdpa", rate: 50.0},
        {**step, "side": "torch", "attention": "flex_attention", rate: 80.0},
        {**step, "side": "ift_jax", rate: 100.0},
        {**step, "side": "torch", "attention": "none", "error": "of its own"},
        {"case": "window", "dtype": "float32", "ok": False},
        {"case": "odd", "dtype": "float32", "error": "no kernel"},
        {"side": "ift_jax", "shape": "s", "batch": 8, "tokens_per_second": 10.0},
    ]
    summary = on_gpu.summarize({"all": {"status": "done", "records": records}})
    (row,) = summary["steps"]
    assert row["ratio"] == 1.25 and row["best_peer"]["attention"] == "flex_attention"
    assert row["ours"]["mfu"] == 0.2
    assert summary["attention"] == {"cases": 2, "wrong": ["window, float32", "odd, float32"]}
    assert summary["decoding"][0]["ratio"] is None
    assert len(summary["errors"]) == 2


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Parts that are not benchmarks: one fails, one never ends, one is done."""
    programs = {
        "gpu_fails": "print('{\"a\": 1}', flush=True); raise SystemExit('no memory')",
        "gpu_hangs": (
            'import pathlib, sys, time; print(\'{"b": 1}\\n{"b\', flush=True)\n'
            f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(__import__('os').getpid()))\n"
            "time.sleep(600)"
        ),
        "gpu_ends": "print('a line of a library'); print('{\"c\": 1}')",
    }
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [on_gpu.Part(name, (name,), 100.0) for name in programs]


def time_out_when_it_has_printed(monkeypatch, pid_file):
    """Make the time of the part that never ends run out as soon as it has written its number."""
    communicate = subprocess.Popen.communicate

    def wait(process, timeout=None):
        if timeout is not None and "gpu_hangs" in process.args:
            while not (pid_file.exists() and pid_file.read_text()):
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(process.args, timeout)
        return communicate(process, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", wait)


def test_a_part_that_fails_or_takes_too_long_loses_nothing(modules, tmp_path, monkeypatch):
    time_out_when_it_has_printed(monkeypatch, tmp_path / "pid")
    monkeypatch.setattr(on_gpu, "PARTS", tuple(modules))
    out = tmp_path / "new" / "results.json"
    assert on_gpu.main(["--out", str(out), "--parts", *[part.name for part in modules]]) == 1
    written = json.loads(out.read_text())
    fails, hangs, ends = (written["parts"][part.name] for part in modules)
    assert (fails["status"], fails["records"]) == ("failed with exit code 1", [{"a": 1}])
    assert fails["log"] == ["no memory"]
    assert (hangs["status"], hangs["records"]) == ("out of time", [{"b": 1}])
    assert hangs["log"] == ['{"b']
    assert (ends["status"], ends["records"]) == ("done", [{"c": 1}])
    assert written["summary"]["parts"] == {
        part.name: written["parts"][part.name]["status"] for part in modules
    }
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)


def test_what_a_part_leaves_of_its_time_the_next_ones_have(monkeypatch):
    clock = [1000.0]
    given = []

    def run_part(part, seconds):
        given.append(seconds)
        clock[0] += min(seconds, float(part.arguments[0]))
        return {"status": "done", "records": []}

    monkeypatch.setattr(on_gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(on_gpu, "run_part", run_part)
    written = []
    takes = ["30", "500", "10", "1"]
    parts = [on_gpu.Part(f"part {i}", (seconds,), 100.0) for i, seconds in enumerate(takes)]
    on_gpu.run_parts(parts, 205.0, lambda results: written.append(len(results)))
    assert given == [100.0, 170.0, 5.0, 0.0]
    assert written == [1, 2, 3, 4]
    monkeypatch.undo()
    assert on_gpu.run_part(parts[0], 0.0)["status"].startswith("not started")


def test_the_script_installs_wheels_first_and_their_time_counts(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$*" "$PYTHONPATH" >>"$0.log"\n')
    python.chmod(0o755)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "peft-1-py3-none-any.whl").touch()
    environment = {**os.environ, "PYTHON": str(python), "WHEELS": str(tmp_path / "wheels")}
    environment.pop("PYTHONPATH", None)
    command = [str(SCRIPT), "--out", "here.json", "--seconds", "300", "--parts", "attention"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    install, _, run, path = Path(f"{python}.log").read_text().splitlines()
    assert install.startswith("-m pip install") and install.endswith("/peft-1-py3-none-any.whl")
    assert "--no-index --no-deps" in install
    module, _, seconds, *rest = run.split()[1:]
    assert module == "benchmarks.on_gpu" and 0 < int(seconds) <= 300
    assert rest == ["--out", "here.json", "--parts", "attention"]
    site = install.split("--target ")[1].split()[0]
    assert path == f"{SCRIPT.parents[1]}:{site}" and not Path(site).exists()
    shown = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "WHEELS=" in shown.stdout
