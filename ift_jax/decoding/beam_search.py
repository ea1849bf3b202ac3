"""Beam search on the device, by the rules of `transformers` or of T5X.

Both extend the W likeliest unfinished hypotheses of a prompt at each step, and keep the W best
finished ones by their log-probability divided by a penalty of their length n, the stop token
included. They differ in three things.

transformers  The penalty is n ** length_penalty. A hypothesis may finish if it is among the W
              likeliest candidates of its step. At the length limit unfinished ones count as
              finished. The search ends when the best unfinished hypothesis, as if it ended now,
              is no better than the worst finished one (`early_stopping`: when W are finished).
t5x           The penalty is ((5 + n) / 6) ** length_penalty (GNMT's, arXiv:1609.08144, equation
              14). Any of the candidates may finish. Unfinished hypotheses are answers only where
              finished ones are lacking. The search ends when the best unfinished hypothesis, as
              if it ended at the length limit, is worse than the worst finished one. T5's published
              settings are 4 beams and a length penalty of 0.6.

Shape suffixes: N prompts, W beams, B = N * W rows, C candidates, M merged hypotheses, S slots,
I stop ids, V vocabulary, D model width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.decoding.cache import Cache, extend, reorder_new_slots
from ift_jax.decoding.decode_batch import DecodeState, RowSettings
from ift_jax.decoding.requests import BeamSearch
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

# Low enough for no hypothesis to reach, and finite: it is added to and compared.
LOWEST = -1.0e9


class Hypotheses(NamedTuple):
    """Token sequences of each prompt, the best first."""

    tokens_NxWxS: jax.Array  # int32.
    log_probs_NxWxS: jax.Array  # float32: of each token.
    lengths_NxW: jax.Array  # int32.
    scores_NxW: jax.Array  # float32: see where they are used.
    ended_NxW: jax.Array  # bool: by a stop token.


class Search(NamedTuple):
    """A search between two blocks, apart from its cache, which is donated to every block."""

    live: Hypotheses  # Scored by the sum of their log-probabilities.
    finished: Hypotheses  # Scored with the penalty; LOWEST where there is none yet.
    found_NxW: jax.Array  # bool: which of `finished` there are.
    running_N: jax.Array  # bool: prompts whose finished hypotheses may still improve.
    states_BxD: jax.Array  # The live hypotheses have them.
    n: jax.Array  # int32 scalar: tokens made.


class _Candidates(NamedTuple):
    """The likeliest continuations of the live hypotheses by one token, likeliest first."""

    parents_NxC: jax.Array  # int32: the live hypothesis that each continues.
    tokens_NxC: jax.Array  # int32.
    log_probs_NxC: jax.Array  # float32: of the token.
    totals_NxC: jax.Array  # float32: of the whole.
    stops_NxC: jax.Array  # bool: whether the token ends it.


@functools.partial(jax.jit, static_argnums=0)
def begin_search(beams: BeamSearch, state: DecodeState, settings: RowSettings) -> Search:
    """Begin with what `begin_batch` makes of W copies of each prompt.

    Args:
        beams: How to search.
        state: The state after the prompts.
        settings: The stop ids and the limits of rows; those of a prompt's rows are the same.
    """
    W = beams.num_beams
    B, S = state.tokens_BxS.shape
    N = B // W
    empty = Hypotheses(
        tokens_NxWxS=state.tokens_BxS.reshape(N, W, S),
        log_probs_NxWxS=jnp.zeros((N, W, S), jnp.float32),
        lengths_NxW=jnp.zeros((N, W), jnp.int32),
        scores_NxW=jnp.full((N, W), LOWEST),
        ended_NxW=jnp.zeros((N, W), bool),
    )
    limits_N = jnp.asarray(settings.limits_B).reshape(N, W)[:, 0]
    return Search(
        # The first step continues one hypothesis: the W of a prompt are the same.
        live=empty._replace(scores_NxW=jnp.full((N, W), LOWEST).at[:, 0].set(0.0)),
        finished=empty,
        found_NxW=jnp.zeros((N, W), bool),
        running_N=state.running_B.reshape(N, W)[:, 0] & (limits_N > 0),
        states_BxD=state.states_BxD,
        n=jnp.int32(0),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def advance_search(
    model: Model,
    beams: BeamSearch,
    prompt_slots: int,
    params: Params,
    cache: Cache,
    search: Search,
    settings: RowSettings,
    limit: jax.Array,
) -> tuple[Cache, Search]:
    """Search until hypotheses have `limit` tokens, or none can improve any more.

    Args:
        model: An unrolled model.
        beams: How to search.
        prompt_slots: Slots of the cache in which a prompt's rows are alike, because new tokens
            come behind them.
        params: The model's parameters.
        cache: Donated.
        search: The search so far.
        settings: As for `begin_search`.
        limit: int32 scalar; tokens of earlier blocks among them.
    """
    N, W = search.live.scores_NxW.shape
    limits_N = jnp.asarray(settings.limits_B).reshape(N, W)[:, 0]
    stop_ids_NxI = jnp.asarray(settings.stop_ids_BxI).reshape(N, W, -1)[:, 0]

    def step(carry: tuple[Cache, Search]) -> tuple[Cache, Search]:
        cache, search = carry
        logits_BxV = model.logits(params, search.states_BxD)
        candidates = _candidates(logits_BxV, search.live, stop_ids_NxI)
        length = search.n + 1
        at_limit_N = length >= limits_N
        finished, found_NxW = _finish(beams, candidates, search, at_limit_N)
        unfinished_NxC = jnp.where(candidates.stops_NxC, LOWEST, candidates.totals_NxC)
        scores_NxW, chosen_NxW = jax.lax.top_k(unfinished_NxC, W)
        live = _continued(search.live, candidates, search.n, chosen_NxW, scores_NxW)
        can_improve_N = _can_improve(beams, live, finished, found_NxW, length, limits_N)
        live = jax.tree.map(functools.partial(_where, search.running_N), live, search.live)

        parents_NxW = jnp.take_along_axis(candidates.parents_NxC, chosen_NxW, axis=1)
        rows_B = (jnp.arange(N)[:, None] * W + parents_NxW).reshape(N * W)
        cache = reorder_new_slots(cache, rows_B, prompt_slots)
        tokens_NxW = jnp.take_along_axis(candidates.tokens_NxC, chosen_NxW, axis=1)
        states_BxD, cache = extend(model, params, tokens_NxW.reshape(N * W), cache)
        return cache, Search(
            live=live,
            finished=finished,
            found_NxW=found_NxW,
            running_N=search.running_N & can_improve_N & ~at_limit_N,
            states_BxD=states_BxD,
            n=length,
        )

    def unfinished(carry: tuple[Cache, Search]) -> jax.Array:
        _, search = carry
        return (search.n < limit) & search.running_N.any()

    cache, search = jax.lax.while_loop(unfinished, step, (cache, search))
    # Whole on every device, so that every process can read it.
    return cache, search._replace(running_N=rules.constrain(search.running_N, None))


@functools.partial(jax.jit, static_argnums=0)
def best_hypotheses(beams: BeamSearch, search: Search) -> Hypotheses:
    """The W best hypotheses of each prompt, scored with the penalty.

    Those without a token only fill up.
    """
    best = search.finished if beams.rules == "transformers" else _filled_up(beams, search)
    return Hypotheses(*(rules.constrain(part, *[None] * part.ndim) for part in best))


def _where(condition_N: jax.Array, yes_Nx: jax.Array, no_Nx: jax.Array) -> jax.Array:
    return jnp.where(condition_N.reshape(-1, *(1,) * (yes_Nx.ndim - 1)), yes_Nx, no_Nx)


def _penalty(beams: BeamSearch, length: Any) -> jax.Array:
    """What a log-probability is divided by."""
    base = length if beams.rules == "transformers" else (5.0 + length) / 6.0
    return jnp.asarray(base, jnp.float32) ** beams.length_penalty


def _candidates(logits_BxV: jax.Array, live: Hypotheses, stop_ids_NxI: jax.Array) -> _Candidates:
    """The likeliest continuations: enough for W that do not end, whatever the others do."""
    N, W = live.scores_NxW.shape
    V = logits_BxV.shape[-1]
    log_probs_NxWxV = jax.nn.log_softmax(logits_BxV.astype(jnp.float32)).reshape(N, W, V)
    totals_NxWxV = log_probs_NxWxV + live.scores_NxW[:, :, None]
    n_candidates = min((1 + stop_ids_NxI.shape[1]) * W, W * V)
    totals_NxC, index_NxC = jax.lax.top_k(totals_NxWxV.reshape(N, W * V), n_candidates)
    tokens_NxC = index_NxC % V
    return _Candidates(
        parents_NxC=index_NxC // V,
        tokens_NxC=tokens_NxC,
        log_probs_NxC=jnp.take_along_axis(log_probs_NxWxV.reshape(N, W * V), index_NxC, axis=1),
        totals_NxC=totals_NxC,
        stops_NxC=(tokens_NxC[:, :, None] == stop_ids_NxI[:, None, :]).any(axis=-1),
    )


def _continued(
    live: Hypotheses,
    candidates: _Candidates,
    n: jax.Array,
    chosen_NxM: jax.Array,
    scores_NxM: jax.Array,
) -> Hypotheses:
    """The hypotheses that the chosen candidates make of the live ones, which have n tokens."""

    def of(values_NxC: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values_NxC, chosen_NxM, axis=1)

    parents_NxM = of(candidates.parents_NxC)

    def append(kept_NxWxS: jax.Array, new_NxC: jax.Array) -> jax.Array:
        of_parents = jnp.take_along_axis(kept_NxWxS, parents_NxM[:, :, None], axis=1)
        return jax.lax.dynamic_update_index_in_dim(of_parents, of(new_NxC), n, axis=2)

    return Hypotheses(
        tokens_NxWxS=append(live.tokens_NxWxS, candidates.tokens_NxC),
        log_probs_NxWxS=append(live.log_probs_NxWxS, candidates.log_probs_NxC),
        lengths_NxW=jnp.full_like(parents_NxM, n + 1),
        scores_NxW=scores_NxM,
        ended_NxW=of(candidates.stops_NxC),
    )


def _finish(
    beams: BeamSearch, candidates: _Candidates, search: Search, at_limit_N: jax.Array
) -> tuple[Hypotheses, jax.Array]:
    """The finished hypotheses with those that end in this step, and which of them there are."""
    W = beams.num_beams
    n_candidates = candidates.totals_NxC.shape[1]
    ends_NxC = candidates.stops_NxC
    if beams.rules == "transformers":
        ends_NxC = (ends_NxC | at_limit_N[:, None]) & (jnp.arange(n_candidates) < W)
    ends_NxC &= search.running_N[:, None] & (candidates.totals_NxC > LOWEST / 2)
    scores_NxC = candidates.totals_NxC / _penalty(beams, search.n + 1)
    merged_NxM = jnp.concatenate(
        [search.finished.scores_NxW, jnp.where(ends_NxC, scores_NxC, LOWEST)], axis=1
    )
    found_NxM = jnp.concatenate([search.found_NxW, ends_NxC], axis=1)
    scores_NxW, best_NxW = jax.lax.top_k(merged_NxM, W)
    is_new_NxW = best_NxW >= W
    new = _continued(search.live, candidates, search.n, jnp.maximum(best_NxW - W, 0), scores_NxW)

    def choose(old_NxWx: jax.Array, new_NxWx: jax.Array) -> jax.Array:
        extra = (1,) * (old_NxWx.ndim - 2)
        place = jnp.minimum(best_NxW, W - 1).reshape(*best_NxW.shape, *extra)
        kept = jnp.take_along_axis(old_NxWx, place, axis=1)
        return jnp.where(is_new_NxW.reshape(*is_new_NxW.shape, *extra), new_NxWx, kept)

    finished = jax.tree.map(choose, search.finished, new)._replace(scores_NxW=scores_NxW)
    return finished, jnp.take_along_axis(found_NxM, best_NxW, axis=1)


def _can_improve(
    beams: BeamSearch,
    live: Hypotheses,
    finished: Hypotheses,
    found_NxW: jax.Array,
    length: jax.Array,
    limits_N: jax.Array,
) -> jax.Array:
    """Whether a live hypothesis may become one of the finished ones: bool N."""
    all_found_N = found_NxW.all(axis=1)
    worst_N = finished.scores_NxW[:, -1]
    likeliest_N = live.scores_NxW[:, 0]
    if beams.rules == "transformers":
        improves_N = likeliest_N / _penalty(beams, length) > worst_N
        return ~all_found_N | (improves_N & (not beams.early_stopping))
    # T5X counts the decoder's first input as well.
    return ~all_found_N | (likeliest_N / _penalty(beams, limits_N + 1) >= worst_N)


def _filled_up(beams: BeamSearch, search: Search) -> Hypotheses:
    """The finished hypotheses, and behind them live ones in the places that are left."""
    n_found_Nx1 = search.found_NxW.sum(axis=1, keepdims=True)
    place_NxW = jnp.arange(beams.num_beams) - n_found_Nx1
    penalty_NxW = _penalty(beams, search.live.lengths_NxW)
    live = search.live._replace(scores_NxW=search.live.scores_NxW / penalty_NxW)

    def choose(finished_NxWx: jax.Array, live_NxWx: jax.Array) -> jax.Array:
        extra = (1,) * (live_NxWx.ndim - 2)
        place = jnp.maximum(place_NxW, 0).reshape(*place_NxW.shape, *extra)
        of_live = jnp.take_along_axis(live_NxWx, place, axis=1)
        return jnp.where(search.found_NxW.reshape(*place_NxW.shape, *extra), finished_NxWx, of_live)

    return jax.tree.map(choose, search.finished, live)
