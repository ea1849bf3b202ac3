"""Every second of a run has a kind, and what an interruption cost is "restarting"."""

import json
import threading

import jax
import pytest

from ift_jax.training.goodput import FILE, KINDS, Goodput, shares_of


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


class Process:
    """A process of a run: its ledger, and its waits for batches."""

    def __init__(self, clock):
        self.clock = clock
        self.waited = 0.0
        self.goodput = Goodput(clock, clock)

    def start(self, folder, step, loading=0.0, compiling=0.0, evaluating=0.0):
        self.clock.passes(loading)
        self.goodput.resume(str(folder), step)
        self.spend("evaluating", evaluating)
        self.spend("compiling", compiling)
        self.goodput.start_steps(step, lambda: self.waited)

    def train(self, seconds, waiting=0.0):
        self.clock.passes(seconds + waiting)
        self.waited += waiting

    def spend(self, kind, seconds):
        with self.goodput.during(kind):
            self.clock.passes(seconds)

    def save(self, step, seconds, evaluating=0.0):
        with self.goodput.during("saving"):
            self.goodput.write(step)
            self.clock.passes(seconds)
            self.spend("evaluating", evaluating)
            self.goodput.write(step)


def seconds(process, **expected):
    """Whether the seconds are exactly these, and the others 0."""
    return process.goodput.seconds() == dict.fromkeys(KINDS, 0.0) | expected


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_run_without_interruption(tmp_path):
    run = Process(Clock())
    run.start(tmp_path, 0, loading=4, compiling=8, evaluating=2)
    run.train(30, waiting=2)
    run.save(10, 3, evaluating=5)
    run.train(44)
    run.spend("other", 2)
    expected = dict(steps=74, waiting=2, saving=3, evaluating=7, compiling=8, other=6)
    assert seconds(run, **expected)
    assert run.goodput.shares() == dict(
        steps=0.74,
        waiting=0.02,
        saving=0.03,
        evaluating=0.07,
        compiling=0.08,
        restarting=0,
        other=0.06,
    )
    run.goodput.write(20, is_complete=True)
    assert lines(tmp_path)[-1]["seconds"] == dict.fromkeys(KINDS, 0.0) | expected


def test_a_killed_run_loses_what_came_after_its_checkpoint(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0, loading=4, compiling=8)
    first.train(30)
    first.save(10, 3, evaluating=5)
    first.train(20, waiting=1)  # Steps 11 to 14, which are done again.
    clock.passes(100)  # It was killed; no process is there.
    second = Process(clock)
    second.start(tmp_path, 10, loading=6, compiling=2)
    kept = dict(saving=3, evaluating=5, compiling=8, other=4)
    assert seconds(second, steps=30, restarting=21 + 100 + 6 + 2, **kept)
    second.train(20, waiting=1)
    assert seconds(second, steps=50, waiting=1, restarting=129, **kept)
    # Killed once more before the next checkpoint.
    clock.passes(50)
    third = Process(clock)
    third.start(tmp_path, 10, loading=6, compiling=2)
    third.train(20)
    assert seconds(third, steps=50, restarting=129 + 21 + 50 + 8, **kept)
    assert sum(third.goodput.seconds().values()) == clock.now - 1000
    assert sum(third.goodput.shares().values()) == pytest.approx(1, abs=1e-12)


def test_the_cut_off_part_of_a_save_is_lost_and_a_cut_off_evaluation_is_made_up_for(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0)
    first.train(30)
    with first.goodput.during("saving"):
        first.goodput.write(10)
        clock.passes(2)  # The checkpoint is complete; the kill comes before its line.
    second = Process(clock)
    second.start(tmp_path, 10, loading=6, evaluating=5, compiling=1)
    assert seconds(second, steps=30, restarting=2 + 6 + 1, evaluating=5)


def test_a_checkpoint_that_was_lost_takes_its_lines_along(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0, loading=4)
    first.train(30)
    first.save(10, 3)
    first.train(30)
    first.save(20, 3)
    second = Process(clock)
    second.start(tmp_path, 10, loading=5)
    assert seconds(second, steps=30, saving=3, other=4, restarting=30 + 3 + 5)
    assert {line["step"] for line in lines(tmp_path)} == {0, 10}


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0, loading=4, compiling=8, evaluating=2)
    first.train(30)
    clock.passes(10)
    second = Process(clock)
    second.start(tmp_path, 0, loading=4, compiling=1, evaluating=2)
    lost = 30 + 10 + 4 + 1 + 2  # The first evaluation is done again, too.
    assert seconds(second, compiling=8, evaluating=2, other=4, restarting=lost)


def test_a_run_that_was_killed_before_its_first_step_starts_only_once(tmp_path):
    clock = Clock()
    first = Process(clock)
    clock.passes(4)
    first.goodput.resume(str(tmp_path), 0)
    clock.passes(3)
    second = Process(clock)
    second.start(tmp_path, 0, loading=4, compiling=8)
    assert seconds(second, restarting=7, other=4, compiling=8)


def test_the_time_before_a_complete_run_is_made_longer_is_none_of_its_own(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0, loading=4)
    first.train(30)
    first.goodput.write(10, is_complete=True)
    clock.passes(10_000)
    second = Process(clock)
    second.start(tmp_path, 10, loading=5, compiling=1)
    second.train(20)
    assert seconds(second, steps=50, other=9, compiling=1)


def test_a_clock_that_is_behind_takes_nothing_away(tmp_path):
    first = Process(Clock())
    first.start(tmp_path, 0)
    first.train(30)
    first.save(10, 0)
    second = Process(Clock())
    second.start(tmp_path, 10)
    assert seconds(second, steps=30)


def compile_for(clock, seconds):
    """What JAX does when it compiles a program."""
    clock.passes(seconds)
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)


def test_what_this_thread_compiles_is_no_evaluation_and_no_step(tmp_path):
    run = Process(Clock())
    with run.goodput.compiling_noticed():
        run.start(tmp_path, 0, loading=4)
        with run.goodput.during("evaluating"):
            run.clock.passes(1)
            compile_for(run.clock, 3)
            run.clock.passes(1)
        run.train(10)
        compile_for(run.clock, 2)
        other = threading.Thread(target=compile_for, args=(Clock(), 7))
        other.start()
        other.join()
        jax.monitoring.record_event_duration_secs("/jax/something/else", 5.0)
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 5.0)
    assert seconds(run, other=4, evaluating=2, compiling=5, steps=10)


def test_what_a_resumed_run_compiles_before_its_first_step_is_lost(tmp_path):
    clock = Clock()
    first = Process(clock)
    first.start(tmp_path, 0)
    first.train(30)
    first.save(10, 0)
    second = Process(clock)
    with second.goodput.compiling_noticed():
        second.goodput.resume(str(tmp_path), 10)
        with second.goodput.during("evaluating"):
            compile_for(clock, 3)
            clock.passes(1)
        second.goodput.start_steps(10, lambda: 0.0)
        compile_for(clock, 2)
    assert seconds(second, steps=30, restarting=3, evaluating=1, compiling=2)


def test_another_process_than_the_first_counts_and_writes_nothing(tmp_path):
    run = Process(Clock())
    run.goodput.start_steps(0, lambda: 0.0)
    run.train(3)
    run.goodput.write(1)
    assert seconds(run, steps=3)
    assert not list(tmp_path.iterdir())


def test_before_any_time_has_passed_the_shares_sum_to_1_too():
    assert sum(shares_of(dict.fromkeys(KINDS, 0.0)).values()) == 1
