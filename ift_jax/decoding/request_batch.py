"""A batch of requests on the host: the arrays that the device reads, and what it has made of them.

Shape suffixes: N prompts, B rows (B / N samples of each prompt), P prompt positions, S slots.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ift_jax.decoding.beam_search import Hypotheses
from ift_jax.decoding.decode_batch import DecodeState, Layout, Prompts, RowSettings
from ift_jax.decoding.log_probs import LogProbs
from ift_jax.decoding.requests import Completion, Output, Request, TokenLogprob
from ift_jax.decoding.sampling import Sampling, SamplingProgram, SamplingRows
from ift_jax.decoding.stops import Stops


def bucket(length: int) -> int:
    """The padded length: 16, 24, 32, 48, 64, 96, ..., at most half as much again."""
    size = 16
    while size < length:
        is_power_of_two = size & (size - 1) == 0
        size = size * 3 // 2 if is_power_of_two else size * 4 // 3
    return size


def cache_slots(n_tokens: int) -> int:
    """The slots of a batch's cache: few sizes, for each is a program of its own.

    Up to 64 slots a step reads far less of the cache than of the weights.
    """
    return max(64, bucket(n_tokens))


def power_of_two(number: int) -> int:
    """The least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


class BatchArguments(NamedTuple):
    """What the programs of a batch read, apart from the model.

    Attributes:
        prompts: The prompts.
        layout: The shapes.
        program: How tokens are chosen.
        settings: What is done in each row.
    """

    prompts: Prompts
    layout: Layout
    program: SamplingProgram
    settings: RowSettings

    @property
    def key(self) -> Hashable:
        """Equal for batches that the same programs serve."""
        arrays = jax.tree.leaves((self.prompts, self.settings))
        return self.layout, self.program, tuple(map(np.shape, arrays))


class RequestBatch:
    """Requests with the same number of samples or the same beams, and their answers so far.

    Attributes:
        requests: The requests.
        stops: What ends the answers of each.
        beams: How they are searched, or None.
        n_copies: Rows of each prompt.
        max_new_tokens: The most new tokens of any request.
        wanted_B: bool; rows whose answers are not complete.
    """

    def __init__(self, requests: Sequence[Request], stops: Stops):
        """Begin without answers.

        Args:
            requests: At least one.
            stops: What ends the answers of all of them.
        """
        self.requests = list(requests)
        self.stops = [
            stops.with_more(request.options.stop_ids, request.options.stop_strings)
            for request in requests
        ]
        options = [request.options for request in requests]
        self.beams = options[0].beams
        self.n_copies = options[0].rows
        self.max_new_tokens = max(one.max_new_tokens for one in options)
        self.wanted_B = np.zeros(0, bool)
        self._ids: list[list[int]] = [[] for _ in range(len(requests) * self.n_copies)]
        self._scores: list[float | None] = [None for _ in self._ids]
        self._log_probs: LogProbs | None = None
        self._of_prompts: LogProbs | None = None
        self._prompt_lists: dict[int, list[TokenLogprob | None]] = {}

    @property
    def is_done(self) -> bool:
        """Whether all answers are complete."""
        return not self.wanted_B.any()

    @property
    def watches_strings(self) -> bool:
        """Whether the host must look for stop strings between blocks."""
        return any(stops.strings for stops in self.stops)

    # --- What the device reads ---

    def layout(self, pad_id: int, prompt_slots: int, bidirectional_prompt: bool) -> Layout:
        """The shapes; `prompt_slots` are those that prompts take in the cache."""
        options = [request.options for request in self.requests]
        asked = [one.logprobs for one in options if one.logprobs is not None]
        of_prompts = [one.prompt_logprobs for one in options if one.prompt_logprobs is not None]
        return Layout(
            n_slots=cache_slots(prompt_slots + self.max_new_tokens),
            pad_id=pad_id,
            bidirectional_prompt=bidirectional_prompt,
            n_copies=self.n_copies,
            penalizes=any(one.sampling.repetition_penalty != 1 for one in options),
            n_top=_padded_top(asked),
            n_prompt_top=_padded_top(of_prompts),
        )

    def prompts(self, n_prompts: int, pad_id: int, n_positions: int = 0) -> Prompts:
        """The prompts as arrays of `n_prompts` rows, of the longest one's bucket by default."""
        longest = max(len(request.prompt) for request in self.requests)
        tokens_NxP = np.full((n_prompts, n_positions or bucket(longest)), pad_id, np.int32)
        lengths_N = np.ones(n_prompts, np.int32)
        seeds_Nx2 = np.zeros((n_prompts, 2), np.uint32)
        index_N = np.full(n_prompts, -1, np.int32)
        text_lengths_N = np.ones(n_prompts, np.int32)
        for row, request in enumerate(self.requests):
            tokens_NxP[row, : len(request.prompt)] = request.prompt
            lengths_N[row] = len(request.prompt)
            seeds_Nx2[row] = _seed_words(request.options.seed)
            index_N[row] = request.index
            text_lengths_N[row] = request.text_length
        return Prompts(tokens_NxP, lengths_N, seeds_Nx2, index_N, text_lengths_N)

    def settings(self, n_prompts: int, n_vocab: int) -> tuple[SamplingProgram, RowSettings]:
        """How tokens are chosen in each row, and what ends it."""
        options = [request.options for request in self.requests]
        sampling = [one.sampling for one in options]
        filler = [Sampling()] * (n_prompts - len(sampling))
        rows = SamplingRows.of([*sampling, *filler])
        most = power_of_two(max(len(stops.ids) for stops in self.stops))
        stop_ids_NxI = np.full((n_prompts, most), -1, np.int32)
        limits_N = np.zeros(n_prompts, np.int32)
        for row, (one, stops) in enumerate(zip(options, self.stops, strict=True)):
            stop_ids_NxI[row, : len(stops.ids)] = stops.ids
            limits_N[row] = one.max_new_tokens
        copied = RowSettings(rows, stop_ids_NxI, limits_N)
        settings_B: RowSettings = jax.tree.map(
            lambda part: np.repeat(part, self.n_copies, axis=0), copied
        )
        self.wanted_B = np.asarray(settings_B.limits_B) > 0
        return SamplingProgram.of(sampling, n_vocab), settings_B

    # --- What the device has made ---

    def set_prompt_log_probs(self, found: LogProbs | None) -> None:
        """Take those of the prompts' tokens after the first."""
        if found is not None:
            self._of_prompts = jax.device_get(found)

    def update(self, state: DecodeState) -> None:
        """Take the new tokens of a block, and end answers that hold a stop string."""
        tokens_BxS = np.asarray(state.tokens_BxS)
        counts_B = np.asarray(state.counts_B)
        running_B = np.asarray(state.running_B)
        if state.log_probs is not None:
            self._log_probs = jax.device_get(state.log_probs)
        for row in np.flatnonzero(self.wanted_B).tolist():
            ids = tokens_BxS[row, : counts_B[row]].tolist()
            stops = self.stops[row // self.n_copies]
            n_until_stop = stops.tokens_until_stop_string(ids, len(self._ids[row]))
            self._ids[row] = ids[:n_until_stop]
            self.wanted_B[row] = running_B[row] and n_until_stop is None

    def update_beams(self, best: Hypotheses) -> None:
        """Take the answers that a search has found."""
        best = jax.device_get(best)
        for row in np.flatnonzero(self.wanted_B).tolist():
            place = divmod(row, self.n_copies)
            ids = best.tokens_NxWxS[place][: best.lengths_NxW[place]].tolist()
            stops = self.stops[place[0]]
            self._ids[row] = ids[: stops.tokens_until_stop_string(ids, 0)]
            self._scores[row] = float(best.scores_NxW[place])
            self.wanted_B[row] = False
        chosen = best.log_probs_NxWxS.reshape(-1, best.log_probs_NxWxS.shape[-1])
        none = chosen[..., None][..., :0]
        self._log_probs = LogProbs(chosen, none, none)

    def outputs(self) -> list[Output]:
        """The answers so far."""
        return [self._output(number) for number in range(len(self.requests))]

    def _output(self, number: int) -> Output:
        first = number * self.n_copies
        options = self.requests[number].options
        completions = [self._completion(number, first + i) for i in range(options.n)]
        n_top = options.prompt_logprobs
        if n_top is None:
            return Output(completions)
        assert self._of_prompts is not None
        if number not in self._prompt_lists:  # Made once: a stream asks after every block.
            after_first = self.requests[number].prompt[1:]
            found = token_log_probs(self._of_prompts, number, after_first, n_top)
            self._prompt_lists[number] = [None, *found]
        return Output(completions, self._prompt_lists[number])

    def _completion(self, number: int, row: int) -> Completion:
        stops = self.stops[number]
        ids = list(self._ids[row])
        reason = ""
        if not self.wanted_B[row]:
            reason = "stop" if stops.stopped(ids) else "length"
        n_top = self.requests[number].options.logprobs
        found = None
        if n_top is not None and self._log_probs is not None:
            found = token_log_probs(self._log_probs, row, ids, n_top)
        elif n_top is not None:
            found = []
        text = stops.raw_text(ids) if stops.decode else ""
        return Completion(ids, text, reason, found, self._scores[row])


def token_log_probs(
    found: LogProbs, row: int, ids: Sequence[int], n_top: int
) -> list[TokenLogprob]:
    """The log-probabilities of a row's tokens, with the `n_top` likeliest at each place."""
    n = len(ids)
    chosen = found.chosen[row, :n].tolist()
    top_ids = found.top_ids[row, :n, :n_top].tolist()
    top = found.top[row, :n, :n_top].tolist()
    return [
        TokenLogprob(token, logprob, tuple(zip(likeliest, their, strict=True)))
        for token, logprob, likeliest, their in zip(ids, chosen, top_ids, top, strict=True)
    ]


def _padded_top(asked: Sequence[int]) -> int:
    """How many likeliest tokens serve all requests: 0, or a power of two; -1 if none asks."""
    if not asked:
        return -1
    return power_of_two(max(asked)) if max(asked) else 0


def _seed_words(seed: int) -> tuple[int, int]:
    """The key data of `jax.random.key(seed)`, for seeds of 64 bits as well."""
    return (seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF
