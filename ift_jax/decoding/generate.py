"""Generation in batches: the host's side of decoding.

The device makes tokens in blocks (`ift_jax.decoding.decode_batch`). Between two blocks the host
looks for stop strings in the new tokens and hands them to a caller that streams them. Without
such a reason the whole answer is one block. Shape suffixes: B rows, P prompt positions.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.decode_batch import advance_batch, advance_batch_by_eigen, begin_batch
from ift_jax.decoding.sampling import Sampling
from ift_jax.decoding.stops import Stops
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

BLOCK = 16  # Tokens between two looks for stop strings, or for a request to stop.
_FIRST_BLOCK = 4  # Tokens before the first look for a request to stop.
_BLOCK_SECONDS = 0.5  # A single process looks for a request to stop at least this often.


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked of a generation."""

    max_new_tokens: int = 128
    sampling: Sampling = Sampling()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}")


class Generator:
    """A model whose weights are laid out for decoding (`Model.unstack`), a copy made once.

    What is drawn for a prompt depends on (seed, the prompt's index, the token's index) alone.
    Prompts and caches are padded to one of a few lengths, so that few programs are compiled.
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
            params: The model's parameters, which need not be kept.
            stops: What ends an answer.
            pad_id: The padding token, which is also the first input of an encoder-decoder's
                decoder.
            bidirectional_prompt: For a decoder trained with `bidirectional_prefix`.
        """
        self.stops = stops
        self._model = model.unrolled
        self._params = model.unstack(params)
        self._decoder = isinstance(model.config, DecoderConfig)
        self._pad_id = pad_id
        self._bidirectional_prompt = bidirectional_prompt

    def fingerprint(self) -> str:
        """SHA-256 (hex) of some of every weight's values: tells one model from another."""
        some = [leaf[(0,) * (leaf.ndim - 1)][:8] for leaf in jax.tree.leaves(self._params)]
        parts = [np.asarray(part, np.float32).tobytes() for part in jax.device_get(some)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

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
            options: How many tokens, and how they are chosen.
            batch_size: How many prompts, of similar lengths, are decoded together.
            first_index: The index of the first prompt.
            block: Tokens between two looks for stop strings.

        Returns:
            The new tokens of each, including the stop token, or the one that completes a stop
            string.

        Raises:
            ValueError: A decoder is given an empty prompt, or `batch_size` is less than 1.
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
        known: Mapping[int, list[int]] | None = None,
        stopped: Stopped = never,
    ) -> Iterator[dict[int, list[int]]]:
        """Do what `generate` does, but yield the new tokens of each batch as soon as it is done.

        Args:
            prompts: As for `generate`, as are the others.
            options: See `generate`.
            batch_size: See `generate`.
            first_index: See `generate`.
            block: See `generate`.
            known: The new tokens of some prompts, by their place in `prompts`. A batch that needs
                no others is not decoded.
            stopped: Whether to give up the batch at hand before its next block of tokens; nothing
                is yielded after that.

        Yields:
            The new tokens of some prompts, by their place in `prompts`.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if not self.stops.strings and stopped is never:
            block = options.max_new_tokens
        # How fast the device is shows after a first block, which should not take long.
        first = block if stopped is never else min(block, _FIRST_BLOCK)
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        n_rows = min(batch_size, 1 << max(len(prompts) - 1, 0).bit_length())
        for start in range(0, len(prompts), n_rows):
            chosen = by_length[start : start + n_rows]
            if known and all(i in known for i in chosen):
                yield {i: known[i] for i in chosen}
                continue
            batch = {first_index + i: prompts[i] for i in chosen}
            *_, outputs = self._generate_blocks(batch, options, n_rows, first, block, stopped)
            if outputs is None:
                return
            yield dict(zip(chosen, outputs, strict=True))

    def stream(
        self, prompt: Sequence[int], options: Options, *, index: int = 0, block: int = 4
    ) -> Iterator[list[int]]:
        """Yield one prompt's new tokens so far: after the first token, then after every block."""
        for outputs in self._generate_blocks({index: prompt}, options, 1, 1, block):
            assert outputs is not None  # Nothing stops it.
            yield outputs[0]

    def _generate_blocks(
        self,
        prompts: Mapping[int, Sequence[int]],
        options: Options,
        n_rows: int,
        first: int,
        block: int,
        stopped: Stopped = never,
    ) -> Iterator[list[list[int]] | None]:
        """Yield the new tokens so far of each prompt after every block; None if it is stopped.

        Args:
            prompts: By index.
            options: How many tokens, and how they are chosen.
            n_rows: Rows of the batch, at least as many as there are prompts.
            first: Tokens of the first block.
            block: Tokens of every other block.
            stopped: Whether to give up before the next block.
        """
        lengths = [len(prompt) for prompt in prompts.values()]
        if self._decoder and not all(lengths):
            raise ValueError("a decoder needs at least one token of prompt")
        prompts_BxP = np.full((n_rows, bucket(max(lengths))), self._pad_id, np.int32)
        lengths_B = np.ones(n_rows, np.int32)
        index_B = np.full(n_rows, -1, np.int32)
        for row, (index, prompt) in enumerate(prompts.items()):
            prompts_BxP[row, : len(prompt)] = prompt
            lengths_B[row] = len(prompt)
            index_B[row] = index

        slots_before = prompts_BxP.shape[1] if self._decoder else 1
        cache, state = begin_batch(
            self._model,
            bucket(slots_before + options.max_new_tokens),
            self._pad_id,
            self._bidirectional_prompt,
            options.sampling.repetition_penalty != 1.0,
            self._params,
            prompts_BxP,
            lengths_B,
            index_B,
            jax.random.key(options.seed),
        )
        few_rows_on_cpu = n_rows > 1 and rules.platform() == "cpu"
        advance = advance_batch_by_eigen if few_rows_on_cpu else advance_batch
        outputs: list[list[int]] = [[] for _ in prompts]
        wanted_B = index_B >= 0
        n_made = 0
        pace = _Pace(block, is_fixed=stopped is never)
        while n_made < options.max_new_tokens and wanted_B.any():
            if n_made and stopped():
                yield None
                return
            n_made = min(n_made + (pace.block if n_made else first), options.max_new_tokens)
            cache, state = advance(
                self._model,
                self.stops.ids,
                options.sampling,
                self._params,
                cache,
                state,
                wanted_B,
                np.int32(n_made),
            )
            tokens_BxS = np.asarray(state.tokens_BxS)
            counts_B = np.asarray(state.counts_B)
            running_B = np.asarray(state.running_B)
            for row in np.flatnonzero(wanted_B).tolist():
                ids = tokens_BxS[row, : counts_B[row]].tolist()
                n_until_stop = self.stops.tokens_until_stop_string(ids, len(outputs[row]))
                outputs[row] = ids[:n_until_stop]
                wanted_B[row] = running_B[row] and n_until_stop is None
            pace.read(n_made)
            yield [list(output) for output in outputs]


class _Pace:
    """The number of tokens in a block: no more than a slow device makes in `_BLOCK_SECONDS`.

    Several processes must ask equally often whether to stop, so for them it never changes.
    """

    def __init__(self, block: int, *, is_fixed: bool):
        self.block = block
        self._most = block
        self._is_fixed = is_fixed or jax.process_count() > 1
        self._n_made = 0
        self._time = time.perf_counter()

    def read(self, n_made: int) -> None:
        """Take the time of the block after which there are `n_made` tokens."""
        now = time.perf_counter()
        per_token = (now - self._time) / (n_made - self._n_made)
        self._time = now
        self._n_made = n_made
        if not self._is_fixed:
            self.block = max(1, min(self._most, int(_BLOCK_SECONDS / per_token)))


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


def bucket(length: int) -> int:
    """The padded length: 16, 24, 32, 48, 64, 96, ..., at most half as much again."""
    size = 16
    while size < length:
        is_power_of_two = size & (size - 1) == 0
        size = size * 3 // 2 if is_power_of_two else size * 4 // 3
    return size
