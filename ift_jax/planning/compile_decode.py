"""The programs of generation, compiled for a topology: prefill and decode."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ift_jax.decoding.beam_search import advance_search, begin_search
from ift_jax.decoding.decode_batch import Layout, Prompts, RowSettings, advance_batch, begin_batch
from ift_jax.decoding.request_batch import bucket, cache_slots
from ift_jax.decoding.requests import BeamSearch
from ift_jax.decoding.sampling import SamplingProgram, SamplingRows
from ift_jax.models.model import Model
from ift_jax.planning.compile_step import Compiled, bytes_per_device, compile_lowered
from ift_jax.sharding import rules
from ift_jax.sharding.trees import abstract
from ift_jax.training.train_program import TrainProgram


def compile_generation(program: TrainProgram) -> dict[str, Compiled]:
    """Compile what `Generator` runs in the config's evaluation.

    A batch has `evaluation.batch_size` rows, of as many prompts or, with beam search, of fewer;
    prompts leave room for `evaluation.max_new_tokens` in a row. Weights are in the compute dtype
    and sharded by their logical axes.

    Returns:
        "prefill" and, if that fits into memory, "decode".
    """
    model = program.model.unrolled
    evaluation = program.config.evaluation
    lengths = program.config.row_lengths
    beams = BeamSearch.of(evaluation)
    n_copies = beams.num_beams if beams else 1
    n_prompts = max(1, evaluation.batch_size // n_copies)
    n_places = bucket(lengths.encoder or max(lengths.decoder - evaluation.max_new_tokens, 1))
    # The decoder of an encoder-decoder starts with one token; a decoder reads the prompt itself.
    n_prompt_slots = 1 if lengths.encoder else n_places
    n_slots = cache_slots(n_prompt_slots + evaluation.max_new_tokens)

    shapes = jax.eval_shape(functools.partial(Model.unstack, program.model), program.model.shapes)
    shardings = rules.tree_shardings(program.mesh, model.logical_axes, shapes)
    params = abstract(shapes, shardings)
    ints_N = jax.ShapeDtypeStruct((n_prompts,), jnp.int32)
    prompts = Prompts(
        jax.ShapeDtypeStruct((n_prompts, n_places), jnp.int32),
        ints_N,
        jax.ShapeDtypeStruct((n_prompts, 2), jnp.uint32),
        ints_N,
        ints_N,
    )
    known_bytes = {"parameters": bytes_per_device(params)}
    with jax.set_mesh(program.mesh):
        layout = Layout(n_slots, pad_id=0, n_copies=n_copies)
        begin = begin_batch.lower(model, layout, params, prompts)
        prefill = compile_lowered(begin, known_bytes)
        if prefill.executable is None:
            return {"prefill": prefill}
        cache, state, _ = abstract(begin.out_info, prefill.executable.output_shardings)
        loop = _lower_loop(model, beams, n_prompt_slots, params, cache, state)
        decode = compile_lowered(loop, known_bytes | {"cache": bytes_per_device(cache)})
    return {"prefill": prefill, "decode": decode}


def _lower_loop(
    model: Model,
    beams: BeamSearch | None,
    n_prompt_slots: int,
    params: Any,
    cache: Any,
    state: Any,
) -> Any:
    """Lower the loop that makes tokens: greedy, or with beams."""
    n_rows = state.tokens_BxS.shape[0]
    ints_B = jax.ShapeDtypeStruct((n_rows,), jnp.int32)
    floats_B = jax.ShapeDtypeStruct((n_rows,), jnp.float32)
    flags_B = jax.ShapeDtypeStruct((n_rows,), jnp.bool_)
    stop_ids_Bx1 = jax.ShapeDtypeStruct((n_rows, 1), jnp.int32)
    limit = jax.ShapeDtypeStruct((), jnp.int32)
    sampling = SamplingRows(floats_B, ints_B, floats_B, floats_B, floats_B)
    settings = RowSettings(sampling, stop_ids_Bx1, ints_B)
    if beams is None:
        return advance_batch.lower(
            model, SamplingProgram(), params, cache, state, settings, flags_B, limit
        )
    search = begin_search.eval_shape(beams, state, settings)
    return advance_search.lower(
        model, beams, n_prompt_slots, params, cache, search, settings, limit
    )
