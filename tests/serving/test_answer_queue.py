"""The queue of the server: its order, its bounds, and what becomes of a fault."""

import logging
import sys
import threading

import pytest

from ift_jax.commands.main import main
from ift_jax.decoding import Completion, Options, Output, Request, Sampling
from ift_jax.serving.answer_queue import AnswerQueue, Ticket
from ift_jax.serving.api_error import ApiError
from tests.serving.served import wait_until

DRAWN = Sampling(temperature=1.0)


class FakeGenerator:
    """Answers every prompt with its own ids, in two looks, once its gate is open."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()

    def stream(self, requests, *, block):
        self.batches.append([request.prompt[0] for request in requests])
        assert self.gate.wait(20)
        if any(request.prompt[0] == 13 for request in requests):
            raise RuntimeError("unlucky")
        for reason in ("", "length"):
            yield [
                Output([Completion(list(one.prompt), "", reason)] * one.options.n)
                for one in requests
            ]


@pytest.fixture
def generator():
    return FakeGenerator()


@pytest.fixture
def queue(generator):
    queue = AnswerQueue(generator, max_waiting=8, batch_size=4)
    yield queue
    generator.gate.set()
    queue.close(20)


def ticket(first, *, length=1, streams=False, **options):
    request = Request([first] * length, Options(**options))
    told = []
    made = Ticket(request, streams, lambda: told.append(made.output))
    made.told = told
    return made


def hold(queue):
    """Submits a ticket that keeps the thread at the gate."""
    first = ticket(1)
    queue.submit([first])
    wait_until(lambda: queue.n_running == 1)
    return first


def finish(queue, generator, tickets):
    generator.gate.set()
    wait_until(lambda: all(one.done or one.failure for one in tickets))


def test_the_oldest_comes_first_with_those_most_like_it(queue, generator):
    first = hold(queue)
    lengths = [10, 500, 11, 9, 400, 12, 30]
    waiting = [ticket(2 + i, length=length) for i, length in enumerate(lengths)]
    queue.submit(waiting)
    finish(queue, generator, [first, *waiting])
    assert generator.batches == [[1], [2, 4, 5, 7], [3, 6, 8]]


def test_only_prompts_with_as_many_answers_share_a_batch(queue, generator):
    first = hold(queue)
    pair = {"n": 2, "sampling": DRAWN}
    waiting = [ticket(2, **pair), ticket(3), ticket(4, **pair), ticket(5, **pair)]
    queue.submit(waiting)
    finish(queue, generator, [first, *waiting])
    assert generator.batches == [[1], [2, 4], [3], [5]]


def test_a_request_gets_room_for_all_of_its_prompts_or_none(queue):
    hold(queue)
    queue.submit([ticket(2) for _ in range(6)])
    with pytest.raises(ApiError, match="6 prompts wait, of at most 8") as error:
        queue.submit([ticket(3) for _ in range(3)])
    assert error.value.status == 429 and error.value.headers["retry-after"]
    queue.submit([ticket(4), ticket(5)])
    assert queue.n_waiting == 8


def test_who_gave_up_is_told_nothing_and_leaves_the_queue(queue, generator):
    first, waiting = hold(queue), [ticket(2), ticket(3)]
    queue.submit(waiting)
    queue.cancel([first, waiting[0]])
    assert (queue.n_waiting, queue.n_running) == (1, 0)
    finish(queue, generator, waiting[1:])
    assert generator.batches == [[1], [3]]
    assert first.told == waiting[0].told == [] and len(waiting[1].told) == 1


def test_a_stream_is_told_of_every_part(queue, generator):
    streamed = ticket(2, streams=True)
    queue.submit([streamed])
    finish(queue, generator, [streamed])
    assert [output.completions[0].finish_reason for output in streamed.told] == ["", "length"]


def test_a_fault_is_logged_and_ends_its_batch_alone(queue, generator, caplog):
    first, unlucky = hold(queue), ticket(13)
    queue.submit([unlucky])
    with caplog.at_level(logging.ERROR):
        finish(queue, generator, [first, unlucky])
    assert first.done and unlucky.failure.status == 500
    assert "unlucky" not in unlucky.failure.message and "unlucky" in caplog.text
    after = ticket(5)
    queue.submit([after])
    finish(queue, generator, [after])
    assert after.done


def test_out_of_memory_is_told_without_a_traceback(queue, generator, caplog):
    def stream(requests, *, block):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes")
        yield

    generator.stream = stream
    failed = ticket(2)
    queue.submit([failed])
    finish(queue, generator, [failed])
    assert failed.failure.status == 503 and "--batch-size" in failed.failure.message
    assert "Traceback" not in caplog.text


def test_what_waits_when_the_queue_closes_is_answered_and_nothing_more_is_taken(queue, generator):
    first, waiting = hold(queue), ticket(2)
    queue.submit([waiting])
    closing = threading.Thread(target=queue.close)
    closing.start()

    def refused():
        try:
            queue.submit([ticket(3)])
        except ApiError as error:
            return error.status == 503
        return False

    wait_until(refused)
    generator.gate.set()
    closing.join(20)
    assert first.done and waiting.done


def test_an_abort_fails_what_has_no_answer_yet(queue, generator):
    first, waiting, gone = hold(queue), ticket(2), ticket(3)
    queue.submit([waiting, gone])
    queue.cancel([gone])
    queue.abort()
    assert first.failure.status == waiting.failure.status == 503
    assert gone.failure is None and queue.n_waiting == queue.n_running == 0
    generator.gate.set()
    queue.close(20)
    assert generator.batches == [[1]] and not first.done


def test_the_command_says_which_extra_it_needs(monkeypatch, capsys):
    import ift_jax.serving

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ift_jax.serving.http_server", raising=False)
    monkeypatch.delattr(ift_jax.serving, "http_server", raising=False)
    assert main(["serve", "--workdir", "runs/none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ift serve needs ") and error.count("\n") == 1
    assert error.endswith("run launch/setup.sh serve\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "65536"], "expected a port from 0 to 65535; got '65536'"),
        (["--timeout", "0"], "expected seconds, more than 0"),
        (["--batch-size", "0"], "expected a whole number, 1 or more"),
    ],
)
def test_flags_are_checked_before_anything_is_opened(capsys, flags, message):
    assert main(["serve", "--workdir", "runs/none", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
