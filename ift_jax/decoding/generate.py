"""Generation in batches: the host's side of decoding.

The device makes tokens in blocks (`ift_jax.decoding.decode_batch`). Between two blocks the host
looks for stop strings in the new tokens and hands them to a caller that streams them. Without
such a reason the whole answer is one block.
"""

import collections.abc
import contextlib
import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.block_loops import BeamLoop, BlockLoop, TokenLoop, prompt_program
from ift_jax.decoding.compile_ahead import CompileAhead, compile_batch, unstacked
from ift_jax.decoding.decode_batch import Prompts
from ift_jax.decoding.pace import Pace
from ift_jax.decoding.request_batch import BatchArguments, RequestBatch, power_of_two
from ift_jax.decoding.requests import BeamSearch, Options, Output, Request, check_request
from ift_jax.decoding.stops import Stops
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Model, Params

BLOCK = 16  # Tokens between two looks for stop strings, or for a request to stop.
_FIRST_BLOCK = 4  # Tokens before the first look for a request to stop.


class Generator:
    """A model whose weights are laid out for decoding (`Model.unstack`), a copy made once.

    `complete` answers requests, `complete_batches` does it batch by batch, `stream` token by token,
    and `generate` is for callers that want nothing but ids. Prompts and caches are padded to one of
    a few lengths, so that few programs are compiled. On a mesh, rows and key-value heads of the
    cache are sharded as in training.

    Attributes:
        stops: What ends an answer.
        model: The unrolled model.
        params: Its parameters.
        pad_id: The padding token.
        bidirectional_prompt: Whether prompt tokens attend to each other both ways.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        *,
        stops: Stops,
        pad_id: int,
        bidirectional_prompt: bool = False,
    ):
        """Copy the weights.

        Args:
            model: The model as training has it.
            params: The model's parameters, which need not be kept; or their shapes and shardings,
                for `compile` alone.
            stops: What ends an answer.
            pad_id: The padding token.
            bidirectional_prompt: For a decoder trained with `bidirectional_prefix`.
        """
        self.stops = stops
        self.model = model.unrolled
        self.params = unstacked(model, params)
        self._decoder = isinstance(model.config, DecoderConfig)
        self.pad_id = pad_id
        self.bidirectional_prompt = bidirectional_prompt
        sharding = jax.tree.leaves(self.params)[0].sharding
        concrete = isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh)
        self._mesh = sharding.mesh if concrete else None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of some of every weight's values: tells one model from another."""
        some = [leaf[(0,) * (leaf.ndim - 1)][:8] for leaf in jax.tree.leaves(self.params)]
        parts = [np.asarray(part, np.float32).tobytes() for part in jax.device_get(some)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    # --- Requests ---

    def check(self, request: Request) -> None:
        """Check that a request can be answered; the methods below do so before anything else.

        Raises:
            UserError: As for `check_request`.
        """
        bidirectional = self.bidirectional_prompt
        check_request(request, self.model.config, bidirectional_prompt=bidirectional)

    def complete(self, requests: Sequence[Request], *, batch_size: int = 32) -> list[Output]:
        """Answer requests.

        Args:
            requests: Prompts with their options, which may differ.
            batch_size: Rows that are decoded together, of prompts of similar lengths; a prompt has
                as many rows as answers or beams.

        Returns:
            An output for each request.

        Raises:
            UserError: As for `check`.
        """
        outputs: dict[int, Output] = {}
        for batch in self.complete_batches(requests, batch_size=batch_size):
            outputs |= batch
        return [outputs[i] for i in range(len(requests))]

    def complete_batches(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int = 32,
        block: int = BLOCK,
        done: Collection[int] = (),
        stopped: Stopped = never,
    ) -> Iterator[dict[int, Output]]:
        """Do what `complete` does, but yield the outputs of each batch as soon as it is done.

        Args:
            requests: See `complete`.
            batch_size: See `complete`.
            block: Tokens between two looks for stop strings.
            done: Places of requests whose outputs the caller has. A batch that needs no others is
                not decoded.
            stopped: Whether to give up the batch at hand before its next block of tokens; nothing
                is yielded after that.

        Yields:
            The outputs of some requests, by their place in `requests`.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        for request in requests:
            self.check(request)
        batches = [
            (chosen, n_prompts)
            for chosen, n_prompts in _batches(requests, batch_size)
            if not done or any(i not in done for i in chosen)
        ]

        def opened(chosen: Sequence[int]) -> RequestBatch:
            return RequestBatch([requests[i] for i in chosen], self.stops)

        def compile_ahead(number: int) -> None:
            chosen, n_prompts = batches[number]
            batch = opened(chosen)
            with self.on_mesh():
                compile_batch(self.model, self.params, batch, self._arguments(batch, n_prompts))

        def key_of(number: int) -> Hashable:
            chosen, n_prompts = batches[number]
            return self._arguments(opened(chosen), n_prompts).key

        with CompileAhead(len(batches), key_of, compile_ahead) as ahead:
            for number, (chosen, n_prompts) in enumerate(batches):
                ahead.wait(number)
                batch = opened(chosen)
                whole = stopped is never and not batch.watches_strings
                most = batch.max_new_tokens if whole else block
                # How fast the device is shows after a first block, which should not take long.
                first = most if stopped is never else min(most, _FIRST_BLOCK)
                for _ in self._generate_blocks(batch, n_prompts, first, most, stopped):
                    pass
                if not batch.is_done:
                    return
                yield dict(zip(chosen, batch.outputs(), strict=True))

    def compile(self, requests: Sequence[Request], *, batch_size: int = 32) -> None:
        """Compile the programs that `complete` runs for such requests; it compiles no more then."""
        compiled = set[Hashable]()
        for chosen, n_prompts in _batches(requests, batch_size):
            batch = RequestBatch([requests[i] for i in chosen], self.stops)
            arguments = self._arguments(batch, n_prompts)
            if arguments.key not in compiled:
                compiled.add(arguments.key)
                with self.on_mesh():
                    compile_batch(self.model, self.params, batch, arguments)

    def stream(
        self, requests: Sequence[Request], *, block: int = 4
    ) -> collections.abc.Generator[list[Output]]:
        """Yield the answers so far of one batch: after the first token, then after every block.

        Args:
            requests: Prompts with their options; all must ask for the same number of answers, or
                for the same beams, whose answers come all at once.
            block: Tokens between two looks.

        Raises:
            UserError: As for `check`.
        """
        for request in requests:
            self.check(request)
        batch = RequestBatch(requests, self.stops)
        for _ in self._generate_blocks(batch, power_of_two(len(requests)), 1, block):
            yield batch.outputs()

    def _generate_blocks(
        self,
        batch: RequestBatch,
        n_prompts: int,
        first: int,
        block: int,
        stopped: Stopped = never,
    ) -> Iterator[None]:
        """Answer a batch; yields after every block, and before the first if none is needed.

        Args:
            batch: Receives the answers.
            n_prompts: Prompts of the batch's shape, at least as many as there are.
            first: Tokens of the first block.
            block: Tokens of every other block.
            stopped: Whether to give up before the next block.
        """
        prompts, layout, program, settings = self._arguments(batch, n_prompts)
        with self.on_mesh():
            begin_batch = prompt_program(prompts)
            cache, state, of_prompts = begin_batch(self.model, layout, self.params, prompts)
        batch.set_prompt_log_probs(of_prompts)
        if batch.is_done:
            yield
        begun = (cache, state)
        loop: BlockLoop
        if batch.beams is None:
            loop = TokenLoop(self.model, program, self.params, begun, settings)
        else:
            # All rows have the same first input in slot 0 of an encoder-decoder's decoder.
            prompt_slots = self._prompt_slots(prompts)
            loop = BeamLoop(self.model, batch.beams, prompt_slots, self.params, begun, settings)
        n_made = 0
        pace = Pace(block, is_fixed=stopped is never)
        while not batch.is_done:
            if n_made and stopped():
                return
            n_made = min(n_made + (pace.block if n_made else first), batch.max_new_tokens)
            with self.on_mesh():
                loop.advance(batch, n_made)
            pace.read(n_made)
            yield

    def _arguments(self, batch: RequestBatch, n_prompts: int) -> BatchArguments:
        """Return what the programs of a batch read."""
        prompts = batch.prompts(n_prompts, self.pad_id)
        layout = batch.layout(self.pad_id, self._prompt_slots(prompts), self.bidirectional_prompt)
        return BatchArguments(
            prompts, layout, *batch.settings(n_prompts, self.model.config.vocab_size)
        )

    def _prompt_slots(self, prompts: Prompts) -> int:
        """Return how many slots of the cache prompts take."""
        return np.shape(prompts.tokens_NxP)[1] if self._decoder else 1

    def on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        """The mesh of the weights, for the duration of a call."""
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    # --- Ids alone ---

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: Options,
        *,
        batch_size: int = 32,
        first_index: int = 0,
        block: int = BLOCK,
    ) -> list[list[int]]:
        """Continue each prompt until it is stopped or has `max_new_tokens`.

        Args:
            prompts: Token ids; for an encoder-decoder the encoder's input, which may be empty.
            options: How they are continued; of several answers, the first is returned.
            batch_size: How many prompts, of similar lengths, are decoded together.
            first_index: The index of the first prompt.
            block: Tokens between two looks for stop strings.

        Returns:
            The new tokens of each, including the stop token, or the one that completes a stop
            string.

        Raises:
            UserError: As for `check`.
        """
        new_tokens: dict[int, list[int]] = {}
        for batch in self.generate_batches(
            prompts, options, batch_size=batch_size, first_index=first_index, block=block
        ):
            new_tokens |= batch
        return [new_tokens[i] for i in range(len(prompts))]

    def generate_batches(
        self,
        prompts: Sequence[Sequence[int]],
        options: Options,
        *,
        batch_size: int = 32,
        first_index: int = 0,
        block: int = BLOCK,
        known: Collection[int] = (),
        stopped: Stopped = never,
    ) -> Iterator[dict[int, list[int]]]:
        """Do what `generate` does, but yield the new tokens of each batch as soon as it is done.

        Args:
            prompts: As for `generate`, as are the others.
            options: See `generate`.
            batch_size: See `generate`.
            first_index: See `generate`.
            block: See `generate`.
            known: `done` of `complete_batches`.
            stopped: See `complete_batches`.

        Yields:
            The new tokens of some prompts, by their place in `prompts`.
        """
        requests = [Request(ids, options, first_index + i) for i, ids in enumerate(prompts)]
        for batch in self.complete_batches(
            requests, batch_size=batch_size, block=block, done=known, stopped=stopped
        ):
            yield {i: output.completions[0].ids for i, output in batch.items()}


def _batches(requests: Sequence[Request], batch_size: int) -> Iterator[tuple[list[int], int]]:
    """The batches, as the places of their requests, and how many prompts their shape holds.

    Requests with as many rows, the same beams, and prompts of similar lengths come together. Those
    that are left over are the shortest, whose batch costs the least: its empty rows are computed.
    """
    alike: dict[tuple[int, BeamSearch | None], list[int]] = {}
    for i in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt)):
        options = requests[i].options
        alike.setdefault((options.rows, options.beams), []).append(i)
    for (n_rows, _), places in alike.items():
        n_prompts = min(max(1, batch_size // n_rows), power_of_two(len(places)))
        left_over = len(places) % n_prompts
        if left_over:
            yield places[:left_over], n_prompts
        for start in range(left_over, len(places), n_prompts):
            yield places[start : start + n_prompts], n_prompts


def generate(
    model: Model,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int = 32,
    bidirectional_prompt: bool = False,
    stop_strings: Sequence[str] = (),
    decode: Callable[[list[int]], str] | None = None,
    **options: Any,
) -> list[list[int]]:
    """Call `Generator.generate` with weights that are used once.

    `stop_ids`, `stop_strings` and `decode` are those of `Stops`, the `options` those of `Options`.
    """
    stops = Stops(tuple(stop_ids), tuple(stop_strings), decode)
    generator = Generator(
        model, params, stops=stops, pad_id=pad_id, bidirectional_prompt=bidirectional_prompt
    )
    return generator.generate(prompts, Options(**options), batch_size=batch_size)
