"""The bounded queue of prompts, and the one thread that answers them on the devices.

What waits together is answered together: the thread takes the oldest prompt and those most like it
in length. An answer does not depend on the others of its batch, so this changes the speed alone.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from ift_jax.decoding import Generator, Output, Request
from ift_jax.serving.api_error import ApiError

BLOCK = 16  # Tokens between two looks at a batch.
STREAM_BLOCK = 4  # The same if an answer of it is streamed.
_GATHER_SECONDS = 0.005  # An idle device waits this long for prompts that come together.
_ENDING = ApiError(503, "the server is ending", code="shutting_down")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class Ticket:
    """The place of one prompt in the queue.

    Attributes:
        request: What is asked.
        streams: Whether `notify` is called for every part of the answer, or once.
        notify: Called in the queue's thread when `output`, `done` or `failure` has changed, but
            never after the ticket was canceled.
        output: The answer so far.
        done: Whether the answer is complete.
        failure: What went wrong.
        canceled: Whether nobody waits for the answer any more.
    """

    request: Request
    streams: bool
    notify: Callable[[], None]
    output: Output | None = None
    done: bool = False
    failure: ApiError | None = None
    canceled: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for more of the answer."""
        return not (self.done or self.canceled or self.failure is not None)


class AnswerQueue:
    """Answers tickets in the order of their arrival, batch by batch."""

    def __init__(self, generator: Generator, *, max_waiting: int = 256, batch_size: int = 16):
        """Start the thread.

        Args:
            generator: The model; nothing else may use it.
            max_waiting: The most prompts that wait.
            batch_size: Rows that are decoded together: a prompt has as many as answers.
        """
        self._generator = generator
        self._max_waiting = max_waiting
        self._batch_size = batch_size
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []
        self._running: list[Ticket] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def capacity(self) -> int:
        """The most prompts that wait or are being answered."""
        return self._max_waiting + self._batch_size

    @property
    def n_waiting(self) -> int:
        """Prompts that wait."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Prompts that are being answered and whose answer somebody waits for."""
        return sum(ticket.is_wanted for ticket in self._running)

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Put the prompts of a request into the queue, all or none.

        Raises:
            ApiError: 503 if the server is ending, 429 if the queue has no room for them.
        """
        with self._changed:
            if self._closed:
                raise _ENDING
            if len(self._waiting) + len(tickets) > self._max_waiting:
                raise ApiError(
                    429,
                    f"{len(self._waiting)} prompts wait, of at most {self._max_waiting}; try again "
                    "later",
                    code="queue_full",
                )
            self._waiting += tickets
            self._changed.notify_all()

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Give up tickets: one that waits leaves the queue, others count no more in their batch."""
        with self._changed:
            for ticket in tickets:
                ticket.canceled = True
                if ticket in self._waiting:
                    self._waiting.remove(ticket)

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, answer what waits, and end the thread.

        Args:
            timeout: Seconds after which the thread is left to itself; None to wait for it.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def abort(self) -> None:
        """Take nothing more, and fail what has no answer yet; `close` then ends the thread."""
        with self._changed:
            self._closed = True
            tickets = [ticket for ticket in self._running + self._waiting if ticket.is_wanted]
            self._waiting = []
            self._changed.notify_all()
        self._fail(tickets, _ENDING)

    # --- The thread ---

    def _run(self) -> None:
        while tickets := self._next_batch():
            try:
                self._answer(tickets)
            except Exception as error:  # The next batch may be fine, so the server goes on.
                self._fail(tickets, _failure(error, len(tickets)))
            with self._changed:
                self._running = []

    def _next_batch(self) -> list[Ticket]:
        """Wait for tickets and take a batch of them; none when the queue is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
                self._changed.wait_for(self._has_enough, _GATHER_SECONDS)
            oldest = self._waiting[0]
            length = len(oldest.request.prompt)
            alike = [ticket for ticket in self._waiting if _kind(ticket) == _kind(oldest)]
            # The sort is stable: of equally long prompts the oldest come first.
            alike.sort(key=lambda ticket: abs(len(ticket.request.prompt) - length))
            self._running = alike[: max(1, self._batch_size // oldest.request.options.n)]
            taken = set(map(id, self._running))
            self._waiting = [ticket for ticket in self._waiting if id(ticket) not in taken]
            return self._running

    def _has_enough(self) -> bool:
        return self._closed or len(self._waiting) >= self._batch_size

    def _answer(self, tickets: list[Ticket]) -> None:
        block = STREAM_BLOCK if any(ticket.streams for ticket in tickets) else BLOCK
        requests = [ticket.request for ticket in tickets]
        with contextlib.closing(self._generator.stream(requests, block=block)) as looks:
            for outputs in looks:
                for ticket, output in zip(tickets, outputs, strict=True):
                    self._update(ticket, output)
                if not any(ticket.is_wanted for ticket in tickets):
                    return

    def _update(self, ticket: Ticket, output: Output) -> None:
        if not ticket.is_wanted:
            return
        done = all(completion.finish_reason for completion in output.completions)
        if done or ticket.streams:
            ticket.output = output
            ticket.done = done
            self._notify(ticket)

    def _fail(self, tickets: Sequence[Ticket], failure: ApiError) -> None:
        for ticket in tickets:
            if ticket.is_wanted:
                ticket.failure = failure
                self._notify(ticket)

    def _notify(self, ticket: Ticket) -> None:
        with self._changed:  # So that nobody is told who has given up, and whose loop may be gone.
            if not ticket.canceled:
                ticket.notify()


def _kind(ticket: Ticket) -> tuple[int, bool]:
    """What the tickets of a batch have in common: rows, and whether prompts are scored."""
    options = ticket.request.options
    return options.n, options.prompt_logprobs is not None


def _failure(error: Exception, n: int) -> ApiError:
    """Log what went wrong with a batch of n prompts, and return what their clients are told."""
    text = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" in text:
        _log.error("out of memory with %d prompts: %s", n, text[:300])
        return ApiError(503, "out of memory; smaller are --batch-size and --max-length")
    _log.error("a batch of %d prompts failed", n, exc_info=error)
    return ApiError(500, "a fault of the server; its log says more")
