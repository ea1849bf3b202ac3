"""Log-likelihoods of several continuations of one prompt, which is read once.

A decoder reads the prompts into a key-value cache, from which every continuation goes on in one
pass; an encoder-decoder encodes them once. Reading the prompt with each choice again took 3.8 times
as long for a decoder (256 wide, on CPU) and 2.3 times for an encoder-decoder, with prompts of 96
tokens and 4 choices of 2 to 7 each.

Shape suffixes: B rows (one for each continuation), N prompts, P prompt positions, L positions of a
continuation, D model width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig
from ift_jax.models.attention.kv import LayerCache, add_slots
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.decoder import Decoder
from ift_jax.models.encoder_decoder import EncoderDecoder
from ift_jax.models.fused_cross_entropy import CrossEntropyOptions, fused_linear_cross_entropy
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules


class PrefixBatch(NamedTuple):
    """Prompts and their continuations, padded on the right, in arrays of NumPy or JAX.

    Attributes:
        prompts_NxP: int32.
        prompt_lengths_N: int32, at least 1.
        prefix_lengths_N: int32, tokens of the prompt that attend to each other in both directions.
        prompt_of_row_B: int32, the index of each row's prompt.
        targets_BxL: int32, the continuations.
        target_lengths_B: int32; 0 for rows that only fill up the batch.
        text_lengths_N: int32, the tokens of a prompt with its longest continuation. LongRoPE
            decides by it for all of them, so a prompt whose continuations end on both sides of
            `rope_original_length` must come twice.
    """

    prompts_NxP: Any
    prompt_lengths_N: Any
    prefix_lengths_N: Any
    prompt_of_row_B: Any
    targets_BxL: Any
    target_lengths_B: Any
    text_lengths_N: Any


class PrefixScores(NamedTuple):
    """How likely each row's continuation is, as arrays of NumPy or JAX.

    Attributes:
        log_likelihoods_B: float32, the sums of the log-probabilities of the tokens.
        greedy_B: bool, whether each token is the likeliest at its place.
    """

    log_likelihoods_B: Any
    greedy_B: Any


def scoring_weights(model: Model, params: Params) -> tuple[Model, Params]:
    """Return the model and the parameters that `prefix_log_likelihoods` takes.

    For a decoder, which uses the cache of decoding, that is a copy of the weights.
    """
    if isinstance(model.config, DecoderConfig):
        return model.unrolled, model.unstack(params)
    return model, params


@functools.partial(jax.jit, static_argnums=(0, 3))
def prefix_log_likelihoods(
    model: Model, params: Params, batch: PrefixBatch, bidirectional_prefix: bool
) -> PrefixScores:
    """Score each row's continuation.

    Args:
        model: What `scoring_weights` returned.
        params: What `scoring_weights` returned.
        batch: The prompts and continuations.
        bidirectional_prefix: Whether the prefix of a decoder's prompt attends in both directions.
    """
    n_rows, n_targets = batch.targets_BxL.shape
    index_BxL = jnp.broadcast_to(jnp.arange(n_targets), (n_rows, n_targets))
    is_target_BxL = index_BxL < batch.target_lengths_B[:, None]
    targets = Tokens(is_target_BxL.astype(jnp.int32), index_BxL)
    n_prompts, n_positions = batch.prompts_NxP.shape
    index_NxP = jnp.broadcast_to(jnp.arange(n_positions), (n_prompts, n_positions))
    is_prompt_NxP = index_NxP < batch.prompt_lengths_N[:, None]
    prompts = Tokens(is_prompt_NxP.astype(jnp.int32), index_NxP)
    module = model.module(params)
    if isinstance(module, Decoder):
        if bidirectional_prefix:
            is_prefix_NxP = index_NxP < batch.prefix_lengths_N[:, None]
            prompts = prompts._replace(prefix_BxL=is_prefix_NxP)
        x_BxLxD = _of_decoder(module, batch, prompts, targets)
    else:
        x_BxLxD = _of_encoder_decoder(module, batch, prompts, targets)
    w_DxV, softcap = model.head(params)
    _, parts = fused_linear_cross_entropy(
        x_BxLxD,
        w_DxV,
        batch.targets_BxL,
        is_target_BxL.astype(jnp.float32),
        CrossEntropyOptions(softcap),
    )
    # Replicated, so that every process can read it.
    return PrefixScores(
        rules.constrain(-jnp.sum(parts.nll * is_target_BxL, axis=1), None),
        rules.constrain(jnp.all((parts.correct > 0) | ~is_target_BxL, axis=1), None),
    )


def _of_decoder(module: Decoder, batch: PrefixBatch, prompts: Tokens, targets: Tokens) -> jax.Array:
    """Return BxLxD, the states from which each target is predicted."""
    n_positions = batch.prompts_NxP.shape[1]
    n_targets = batch.targets_BxL.shape[1]
    x_NxPxD, of_prompts = module.hidden_with_cache(
        batch.prompts_NxP, prompts, prompts, text_lengths_B=batch.text_lengths_N
    )
    last_N = (batch.prompt_lengths_N - 1)[:, None, None]
    first_NxD = jnp.take_along_axis(x_NxPxD, last_N, axis=1)[:, 0]

    row_B = batch.prompt_of_row_B
    start_Bx1 = batch.prompt_lengths_N[row_B][:, None]
    queries = Tokens(targets.segment_ids_BxL, targets.positions_BxL + start_Bx1)
    prefix_BxS = None
    if prompts.prefix_BxL is not None:
        prefix_BxS = jnp.pad(prompts.prefix_BxL[row_B], ((0, 0), (0, n_targets)))
    slots = Tokens(
        jnp.concatenate([prompts.segment_ids_BxL[row_B], queries.segment_ids_BxL], axis=1),
        jnp.concatenate([prompts.positions_BxL[row_B], queries.positions_BxL], axis=1),
        prefix_BxS,
    )

    of_rows = jax.tree.map(lambda part: part[row_B], of_prompts)
    caches = [LayerCache(add_slots(kept, n_targets), jnp.int32(n_positions)) for kept in of_rows]
    x_BxLxD, _ = module.hidden_with_cache(
        batch.targets_BxL, queries, slots, caches, batch.text_lengths_N[row_B]
    )
    # The first target is predicted from the prompt's last state, each other one from the target
    # before it.
    return jnp.concatenate([first_NxD[row_B][:, None], x_BxLxD[:, :-1]], axis=1)


def _of_encoder_decoder(
    module: EncoderDecoder, batch: PrefixBatch, prompts: Tokens, targets: Tokens
) -> jax.Array:
    """Return BxLxD, the states from which each target is predicted, ready for the head."""
    encoded_NxPxD = module.encode(batch.prompts_NxP, prompts)
    row_B = batch.prompt_of_row_B
    before_BxL = jnp.pad(batch.targets_BxL, ((0, 0), (1, 0)))[:, :-1]
    of_rows = Tokens(prompts.segment_ids_BxL[row_B], prompts.positions_BxL[row_B])
    return module.decode(before_BxL, targets, encoded_NxPxD[row_B], of_rows)
