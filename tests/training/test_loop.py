"""The parts of the training loop that can be tested without a run."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from ift_jax.config.schema import Config, EncoderDecoderConfig
from ift_jax.errors import UserError
from ift_jax.io.locks import run_lock
from ift_jax.models.attention import implementations
from ift_jax.sharding import rules
from ift_jax.training import throughput
from ift_jax.training.goodput import Goodput
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.setup import describe_attention


def test_two_runs_in_one_workdir_at_once_are_refused(tmp_path):
    with run_lock(str(tmp_path)):
        with pytest.raises(UserError, match=rf"{tmp_path}: another process is training here"):
            with run_lock(str(tmp_path)):
                pass
    with run_lock(str(tmp_path)):  # Free again.
        pass


def test_the_prefetcher_keeps_the_order_and_raises_errors_of_its_thread():
    assert list(Prefetcher(lambda step: step * step, range(3, 8))) == [9, 16, 25, 36, 49]

    def fail(step):
        if step == 2:
            raise UserError("line 2")
        return step

    prefetcher, got = Prefetcher(fail, range(5)), []
    with pytest.raises(UserError, match="line 2"):
        for batch in prefetcher:
            got.append(batch)
    assert got == [0, 1]
    prefetcher.close()


def test_a_prefetcher_that_is_left_early_can_be_closed():
    prefetcher = Prefetcher(lambda step: step, range(100))
    assert next(iter(prefetcher)) == 0
    prefetcher.close()


def test_the_first_lines_name_the_attention(monkeypatch):
    decoder = Config()
    encoder_decoder = dataclasses.replace(Config(), model=EncoderDecoderConfig())
    assert describe_attention(decoder) == "tiled"
    monkeypatch.setattr(rules, "platform", lambda: "gpu")
    monkeypatch.setattr(implementations, "gpus_are_supported", lambda: True)
    assert describe_attention(decoder) == "triton"
    of_both = describe_attention(encoder_decoder)
    assert of_both == "triton across, xla inside a stack, which has a bias"
    monkeypatch.setattr(implementations, "gpus_are_supported", lambda: False)
    assert describe_attention(decoder) == "xla (the kernel is for NVIDIA GPUs from Ampere on)"


def test_the_peak_is_measured_after_the_first_line_and_its_time_is_excluded(monkeypatch):
    now, measured = 100.0, []

    def measure(dtype):
        nonlocal now
        now += 50.0
        measured.append((dtype, now))
        return 600.0

    monkeypatch.setattr(throughput, "measure_peak_flops", measure)
    train = SimpleNamespace(batch_size=4, peak_tflops=0.0)
    run = SimpleNamespace(
        config=SimpleNamespace(train=train, model=SimpleNamespace(dtype="bfloat16")),
        plan=SimpleNamespace(capacities=(64, 16)),
        train=SimpleNamespace(sequence_lengths=0, trained_tokens=0, encoder_lengths=0),
        program=SimpleNamespace(
            mesh=SimpleNamespace(size=2), model=SimpleNamespace(flops_per_token=lambda *_: 6.0)
        ),
    )
    goodput = Goodput(lambda: now)
    goodput.start_steps(0, lambda: 0.0)
    speed = throughput.Throughput(run, goodput)
    assert speed.positions_per_step == 4 * 80
    speed.measure_peak_once(jnp.ones(1))
    now += 7.0
    first = speed.read({"tokens": 70, "trained_tokens": 35})
    assert (first["seconds"], first["tokens_per_second"], first["mfu"]) == (7.0, 10.0, None)
    assert not measured  # No step waited for it.
    for _ in range(2):  # It is measured only once.
        speed.measure_peak_once(jnp.ones(1))
    assert measured == [("bfloat16", 157.0)]
    now += 4.0
    second = speed.read({"tokens": 80, "trained_tokens": 40})
    assert second["seconds"] == 4.0 and second["trained_tokens_per_second"] == 10.0
    assert second["mfu"] == pytest.approx(6.0 * 20.0 / 2 / 600.0)
