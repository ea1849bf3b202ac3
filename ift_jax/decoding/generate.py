"""Generation in batches, block by block.

A batch's state stays on the device. A block is one call of one program that makes as many tokens
as it is told; between blocks the host looks at them: for stop strings, and to show them. Without
such a reason a batch is one block. Shape suffixes: B rows, P places, S slots, V vocabulary.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.cache import Cache, extend, prefill
from ift_jax.decoding.sampling import Sampling, choose
from ift_jax.decoding.stops import Stops
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

BLOCK = 16  # Tokens between two looks for stop strings.


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
        """Copies the weights; `params`, as training has them, need not be kept.

        `pad_id` is also the first input of an encoder-decoder's decoder; `bidirectional_prompt`
        is for a decoder trained with `bidirectional_prefix`.
        """
        self.stops = stops
        self._model, self._params = model.unrolled, model.unstack(params)
        self._decoder = isinstance(model.config, DecoderConfig)
        self._pad_id, self._bidirectional_prompt = pad_id, bidirectional_prompt

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
        """Continues each prompt until it is stopped or has `max_new_tokens`.

        Prompts are token ids, for an encoder-decoder the encoder's input, which may be empty; the
        first has the index `first_index`. `batch_size` of them, of similar lengths, are decoded
        together, `block` tokens between two looks for stop strings.

        Returns:
            The new tokens of each, with the stop token or that which completes a stop string.

        Raises:
            ValueError: an empty prompt for a decoder, or no rows.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        block = block if self.stops.strings else options.max_new_tokens
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        rows = min(batch_size, 1 << max(len(prompts) - 1, 0).bit_length())
        new: dict[int, list[int]] = {}
        for start in range(0, len(prompts), rows):
            batch = {first_index + i: prompts[i] for i in by_length[start : start + rows]}
            *_, outputs = self._blocks(batch, options, rows, block, block)
            new |= zip(batch, outputs, strict=True)
        return [new[first_index + i] for i in range(len(prompts))]

    def stream(
        self, prompt: Sequence[int], options: Options, *, index: int = 0, block: int = 4
    ) -> Iterator[list[int]]:
        """One prompt's new tokens so far: after the first, then after every block."""
        return (outputs[0] for outputs in self._blocks({index: prompt}, options, 1, 1, block))

    def _blocks(
        self,
        prompts: Mapping[int, Sequence[int]],
        options: Options,
        rows: int,
        first: int,
        block: int,
    ) -> Iterator[list[list[int]]]:
        """The new tokens of prompts (by index) after `first` tokens and after each block more."""
        lengths = [len(prompt) for prompt in prompts.values()]
        if self._decoder and not all(lengths):
            raise ValueError("a decoder needs at least one token of prompt")
        prompts_BxP = np.full((rows, bucket(max(lengths))), self._pad_id, np.int32)
        lengths_B, index_B = np.ones(rows, np.int32), np.full(rows, -1, np.int32)
        for row, (index, prompt) in enumerate(prompts.items()):
            prompts_BxP[row, : len(prompt)] = prompt
            lengths_B[row], index_B[row] = len(prompt), index
        before = prompts_BxP.shape[1] if self._decoder else 1
        cache, state = begin_batch(
            self._model,
            bucket(before + options.max_new_tokens),
            self._pad_id,
            self._bidirectional_prompt,
            options.sampling.repetition_penalty != 1.0,
            self._params,
            prompts_BxP,
            lengths_B,
            index_B,
            jax.random.key(options.seed),
        )
        advance = advance_batch
        if rows > 1 and rules.platform() == "cpu":
            advance = _advance_by_eigen
        outputs: list[list[int]] = [[] for _ in prompts]
        n, wanted_B = 0, index_B >= 0
        while n < options.max_new_tokens and wanted_B.any():
            n = min(n + block if n else first, options.max_new_tokens)
            cache, state = advance(
                self._model,
                self.stops.ids,
                options.sampling,
                self._params,
                cache,
                state,
                wanted_B,
                np.int32(n),
            )
            tokens_BxS, counts_B, running_B = map(np.asarray, state[:3])
            for row in np.flatnonzero(wanted_B).tolist():
                ids = tokens_BxS[row, : counts_B[row]].tolist()
                end = self.stops.tokens_to_string(ids, len(outputs[row]))
                outputs[row] = ids[:end]
                wanted_B[row] = running_B[row] and end is None
            yield [list(output) for output in outputs]


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
    """`Generator.generate` with weights that are used once; `options` are those of `Options`."""
    stops = Stops(tuple(stop_ids), tuple(stop_strings), decode)
    return Generator(
        model, params, stops=stops, pad_id=pad_id, bidirectional_prompt=bidirectional_prompt
    ).generate(prompts, Options(**options), batch_size=batch_size)


def bucket(length: int) -> int:
    """The padded length: 16, 24, 32, 48, 64, 96, ... so at most half as much again."""
    size = 16
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


class _State(NamedTuple):
    """A batch between two blocks, but for its cache, which is given away to every block."""

    tokens_BxS: jax.Array  # The new tokens; there is a slot for each, so they fit.
    counts_B: jax.Array  # int32: new tokens that count.
    running_B: jax.Array  # bool; rows that nothing has ended.
    states_BxD: jax.Array  # From which the next token is predicted.
    n: jax.Array  # int32 scalar: tokens that were made.
    keys_B: jax.Array
    seen_BxV: jax.Array | None  # bool; only where a penalty asks for it.


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def begin_batch(
    model: Model,
    n_slots: int,
    pad_id: int,
    bidirectional_prompt: bool,
    penalised: bool,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    index_B: jax.Array,
    key: jax.Array,
) -> tuple[Cache, _State]:
    """Reads the prompts. Rows of index -1 only fill the batch up."""
    B, P = prompts_BxP.shape
    decoder = isinstance(model.config, DecoderConfig)
    states_BxD, cache = prefill(
        model,
        params,
        prompts_BxP,
        lengths_B,
        n_new=n_slots - (P if decoder else 1),
        start_id=pad_id,
        bidirectional_prompt=bidirectional_prompt,
    )
    seen_BxV = None
    if penalised:
        # A penalty looks at what the decoder has read: of an encoder-decoder its first input.
        n_vocab, read_BxP = model.config.vocab_size, jnp.full((B, 1), pad_id)
        if decoder:
            read_BxP = jnp.where(jnp.arange(P) < lengths_B[:, None], prompts_BxP, n_vocab)
        place = jnp.arange(B)[:, None], read_BxP
        seen_BxV = jnp.zeros((B, n_vocab), bool).at[place].set(True, mode="drop")
    return cache, _State(
        tokens_BxS=jnp.full((B, n_slots), pad_id, jnp.int32),
        counts_B=jnp.zeros(B, jnp.int32),
        running_B=index_B >= 0,
        states_BxD=states_BxD,
        n=jnp.int32(0),
        seen_BxV=seen_BxV,
        keys_B=jax.vmap(lambda index: jax.random.fold_in(key, index))(index_B),
    )


def _advance_batch(
    model: Model,
    stop_ids: tuple[int, ...],
    sampling: Sampling,
    params: Params,
    cache: Cache,
    state: _State,
    wanted_B: jax.Array,
    limit: jax.Array,
) -> tuple[Cache, _State]:
    """Makes tokens until there are `limit` or no row that is wanted runs.

    Each is read as soon as it is made, the last for nothing: so a block need not know its place.
    """

    def step(carry: tuple[Cache, _State]) -> tuple[Cache, _State]:
        cache, s = carry
        keys_B = jax.vmap(lambda key: jax.random.fold_in(key, s.n))(s.keys_B)
        seen_BxV = s.seen_BxV
        token_B = choose(model.logits(params, s.states_BxD), keys_B, sampling, seen_BxV)
        if seen_BxV is not None:
            seen_BxV = seen_BxV.at[jnp.arange(token_B.shape[0]), token_B].set(True)
        states_BxD, cache = extend(model, params, token_B, cache)
        return cache, s._replace(
            states_BxD=states_BxD,
            n=s.n + 1,
            tokens_BxS=jax.lax.dynamic_update_index_in_dim(s.tokens_BxS, token_B, s.n, axis=1),
            counts_B=s.counts_B + s.running_B,
            running_B=s.running_B & ~jnp.isin(token_B, jnp.asarray(stop_ids, jnp.int32)),
            seen_BxV=seen_BxV,
        )

    state = state._replace(running_B=state.running_B & wanted_B)
    cache, state = jax.lax.while_loop(
        lambda carry: (carry[1].n < limit) & carry[1].running_B.any(), step, (cache, state)
    )
    # What the host reads is whole on every device, so that every process can read it.
    read = (rules.constrain(a, *(None,) * a.ndim) for a in state[:3])
    return cache, _State._make((*read, *state[3:]))


advance_batch = jax.jit(_advance_batch, static_argnums=(0, 1, 2), donate_argnums=(4,))
# XLA:CPU gives products to YNNPACK, which for a few rows is slower than Eigen: 8 rows of SmolLM2's
# 135M were decoded 1.37 times as fast without it, 32 rows 1.24 times, one row no faster.
_advance_by_eigen = jax.jit(
    _advance_batch, static_argnums=(0, 1, 2), donate_argnums=(4,),
    compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""},
)  # fmt: skip
