"""An endpoint's call that is interrupted: what was answered is not asked for again."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.synthesis import answers_so_far
from ift_jax.synthesis.answers_so_far import AnswersSoFar
from ift_jax.synthesis.endpoint import EndpointCompleter
from ift_jax.synthesis.generator import Interrupted, TextCompletion, TextRequest
from ift_jax.synthesis.journal import JournaledCompleter
from ift_jax.synthesis.rejection import run_round
from ift_jax.synthesis.reward_functions import FunctionSpec
from tests.synthesis.http_model import echo, serving
from tests.synthesis.rejection_runs import InProcess, files_of, plan_of, write_rows

REQUESTS = [TextRequest(f"Task {k}:", 16, seed=k) for k in range(9)]
FILE = "answers_so_far.jsonl"


class Killed(BaseException):
    """Stands for SIGKILL."""


def kill_after(patch, n_answers, n_bytes):
    """Kill the process while it keeps an answer, so many bytes into its line."""
    append = answers_so_far.append_json_lines
    n_left = n_answers

    def append_or_die(path, values):
        nonlocal n_left
        n_left -= 1
        if n_left == -1:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(values[0])[:n_bytes])
        if n_left < 0:  # Nothing is written after a death.
            raise Killed
        append(path, values)

    patch.setattr(answers_so_far, "append_json_lines", append_or_die)


def endpoint(url, **options):
    return EndpointCompleter(url, "small", concurrency=1, timeout=5, **options)


def prompts(received):
    return [body["prompt"] for _, body, _ in received]


@pytest.mark.parametrize(("n_answers", "n_bytes"), [(0, 0), (3, 0), (3, 20), (8, 70), (8, 9)])
def test_a_killed_call_asks_only_for_what_is_missing(n_answers, n_bytes, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    with serving(echo) as (url, _):
        answers = JournaledCompleter(endpoint(url), str(whole / "j")).complete(REQUESTS)
    assert answers == [[TextCompletion(f"Task {k}:", "length", -1.5, 2)] for k in range(9)]
    with serving(echo) as (url, received):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, n_answers, n_bytes)
            JournaledCompleter(endpoint(url), str(killed / "j")).complete(REQUESTS)
        assert not (killed / "j").exists()
        n_before = len(received)
        again = JournaledCompleter(endpoint(url), str(killed / "j")).complete(REQUESTS)
    assert prompts(received[n_before:]) == [f"Task {k}:" for k in range(n_answers, 9)]
    assert again == answers
    assert files_of(killed) == files_of(whole)


def test_what_an_endpoint_that_fails_has_answered_is_kept(tmp_path):
    def fails_at_5(path, body, number):
        return (404, {}, b"gone") if body["prompt"] == "Task 5:" else echo(path, body, number)

    with serving(fails_at_5) as (url, _), pytest.raises(UserError, match="status 404: gone"):
        JournaledCompleter(endpoint(url), str(tmp_path / "j")).complete(REQUESTS)
    with serving(echo) as (url, received):
        JournaledCompleter(endpoint(url), str(tmp_path / "j")).complete(REQUESTS)
    assert "Task 4:" not in prompts(received) and "Task 5:" in prompts(received)


def test_a_signal_ends_a_call_after_the_answers_that_have_begun(tmp_path):
    with serving(echo) as (url, received):
        stopping = endpoint(url, stopped=lambda: len(received) == 4)
        with pytest.raises(Interrupted):
            JournaledCompleter(stopping, str(tmp_path / "j")).complete(REQUESTS)
        assert prompts(received) == [f"Task {k}:" for k in range(4)]
        JournaledCompleter(endpoint(url), str(tmp_path / "j")).complete(REQUESTS)
    assert prompts(received) == [f"Task {k}:" for k in range(9)]
    assert not (tmp_path / FILE).exists()


def test_answers_of_another_call_or_model_do_not_count(tmp_path):
    first = AnswersSoFar(str(tmp_path), REQUESTS, {"model": "a"})
    first.add(2, [TextCompletion("two", "stop")])
    same = AnswersSoFar(str(tmp_path), REQUESTS, {"model": "a"})
    assert same.known == {2: [TextCompletion("two", "stop")]}
    assert not AnswersSoFar(str(tmp_path), REQUESTS, {"model": "b"}).known
    assert not AnswersSoFar(str(tmp_path), REQUESTS[1:], {"model": "a"}).known
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write('[1, "x"]\n')  # No line of ours; nothing behind it is trusted.
    same.add(3, [TextCompletion("three", "stop")])
    assert list(AnswersSoFar(str(tmp_path), REQUESTS, {"model": "a"}).known) == [2]


def test_a_round_of_rejection_sampling_that_is_killed_has_the_same_files(tmp_path, monkeypatch):
    path = write_rows(
        tmp_path / "rows", [{"inputs": f"say {k}", "targets": "Hi"} for k in range(6)]
    )
    plan = plan_of(path, samples=2, batch_size=6)

    def run(folder, url):
        def score():
            return InProcess(FunctionSpec("exact-match"))

        return run_round(plan, str(folder), 1, lambda: endpoint(url), score, log=lambda _: None)

    with serving(echo) as (url, received):
        run(tmp_path / "whole", url)
        assert len(received) == 12
        for n_answers in (4, 3):  # In the first group of six, and then in the second.
            with monkeypatch.context() as patch, pytest.raises(Killed):
                kill_after(patch, n_answers, 30)
                run(tmp_path / "killed", url)
        n_before = len(received)
        run(tmp_path / "killed", url)
        assert len(received) == n_before + 12 - 4 - 3
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
