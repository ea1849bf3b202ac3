"""A batch on the device between the host's looks at it: tokens that are chosen, or beams.

Each loop is begun with what `begin_batch` returned, and advanced block by block; a `RequestBatch`
takes what the device has made.
"""

import functools
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from ift_jax.decoding.beam_search import advance_search, begin_search, best_hypotheses
from ift_jax.decoding.cache import Cache
from ift_jax.decoding.decode_batch import (
    DecodeState,
    Prompts,
    RowSettings,
    advance_batch,
    advance_batch_by_eigen,
    begin_batch,
    begin_batch_by_eigen,
)
from ift_jax.decoding.request_batch import RequestBatch
from ift_jax.decoding.requests import BeamSearch
from ift_jax.decoding.sampling import SamplingProgram
from ift_jax.models.model import Model, Params
from ift_jax.sharding.product_library import can_choose_eigen

_EIGEN_POSITIONS = 2048  # Positions of a batch's prompts from which on its compilation pays.


class BlockLoop(Protocol):
    """The loop of a batch."""

    def advance(self, batch: RequestBatch, n_made: int) -> None:
        """Go on until there are `n_made` tokens or nothing is left to do; update the batch."""


class TokenLoop:
    """Chooses tokens.

    Attributes:
        cache: With all tokens that were made but the last; None after a call that was interrupted.
    """

    def __init__(
        self,
        model: Model,
        program: SamplingProgram,
        params: Params,
        begun: tuple[Cache, DecodeState],
        settings: RowSettings,
    ):
        self._model = model
        self._program = program
        self._params = params
        self.cache: Cache | None
        self.cache, self._state = begun
        self._settings = settings
        self._advance = token_program(settings)

    def advance(self, batch: RequestBatch, n_made: int) -> None:
        """See `BlockLoop`."""
        cache, self.cache = self.cache, None  # It is gone if the call is interrupted.
        self.cache, self._state = self._advance(
            self._model,
            self._program,
            self._params,
            cache,
            self._state,
            self._settings,
            batch.wanted_B,
            np.int32(n_made),
        )
        batch.update(self._state)

    def tokens(self) -> list[int]:
        """All tokens that a batch of one row has made, those after its end among them."""
        return np.asarray(self._state.tokens_BxS)[0, : int(self._state.n)].tolist()


def prompt_program(prompts: Prompts) -> jax.stages.Wrapped:
    """The compiled function that reads these prompts best on this machine."""
    by_eigen = np.size(prompts.tokens_NxP) >= _EIGEN_POSITIONS and can_choose_eigen()
    return begin_batch_by_eigen if by_eigen else begin_batch


def token_program(settings: RowSettings) -> jax.stages.Wrapped:
    """The compiled loop that serves rows of these settings best on this machine."""
    by_eigen = len(settings.limits_B) > 1 and not _has_avx512() and can_choose_eigen()
    return advance_batch_by_eigen if by_eigen else advance_batch


@functools.cache
def _has_avx512() -> bool:
    """Whether this machine's CPU has AVX-512; False where Linux does not tell."""
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and " avx512f " in cpu_info.read_text()


class BeamLoop:
    """Searches beams."""

    def __init__(
        self,
        model: Model,
        beams: BeamSearch,
        prompt_slots: int,
        params: Params,
        begun: tuple[Cache, DecodeState],
        settings: RowSettings,
    ):
        self._model = model
        self._beams = beams
        self._prompt_slots = prompt_slots
        self._params = params
        self._settings = settings
        self._cache, state = begun
        self._search = begin_search(beams, state, settings)

    def advance(self, batch: RequestBatch, n_made: int) -> None:
        """See `BlockLoop`; the answers come all at once."""
        self._cache, self._search = advance_search(
            self._model,
            self._beams,
            self._prompt_slots,
            self._params,
            self._cache,
            self._search,
            self._settings,
            np.int32(n_made),
        )
        if not np.asarray(self._search.running_N).any():
            batch.update_beams(best_hypotheses(self._beams, self._search))
