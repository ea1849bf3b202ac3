"""The programs of generation, compiled for a topology: prefill and decode."""

import functools

import jax
import jax.numpy as jnp

from ift_jax.decoding.decode_batch import Layout, Prompts, RowSettings, advance_batch, begin_batch
from ift_jax.decoding.request_batch import bucket
from ift_jax.decoding.sampling import SamplingProgram, SamplingRows
from ift_jax.models.model import Model
from ift_jax.planning.compile_step import Compiled, bytes_per_device, compile_lowered
from ift_jax.sharding import rules
from ift_jax.sharding.trees import abstract
from ift_jax.training.train_program import TrainProgram


def compile_generation(program: TrainProgram) -> dict[str, Compiled]:
    """Compile what `Generator` runs in the config's evaluation.

    A batch has `evaluation.batch_size` prompts, which leave room for `evaluation.max_new_tokens` in
    a row; decoding is greedy. Weights are in the compute dtype and sharded by their logical axes.

    Returns:
        "prefill" and, if that fits into memory, "decode".
    """
    model = program.model.unrolled
    evaluation = program.config.evaluation
    lengths = program.config.row_lengths
    n_rows = evaluation.batch_size
    n_places = bucket(lengths.encoder or max(lengths.decoder - evaluation.max_new_tokens, 1))
    # The decoder of an encoder-decoder starts with one token; a decoder reads the prompt itself.
    n_prompt_slots = 1 if lengths.encoder else n_places
    n_slots = bucket(n_prompt_slots + evaluation.max_new_tokens)

    shapes = jax.eval_shape(functools.partial(Model.unstack, program.model), program.model.shapes)
    shardings = rules.tree_shardings(program.mesh, model.logical_axes, shapes)
    params = abstract(shapes, shardings)
    tokens_BxP = jax.ShapeDtypeStruct((n_rows, n_places), jnp.int32)
    ints_B = jax.ShapeDtypeStruct((n_rows,), jnp.int32)
    flags_B = jax.ShapeDtypeStruct((n_rows,), jnp.bool_)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    floats_B = jax.ShapeDtypeStruct((n_rows,), jnp.float32)
    words_Bx2 = jax.ShapeDtypeStruct((n_rows, 2), jnp.uint32)
    stop_ids_Bx1 = jax.ShapeDtypeStruct((n_rows, 1), jnp.int32)
    prompts = Prompts(tokens_BxP, ints_B, words_Bx2, ints_B)
    sampling = SamplingRows(floats_B, ints_B, floats_B, floats_B, floats_B)
    settings = RowSettings(sampling, stop_ids_Bx1, ints_B)
    known_bytes = {"parameters": bytes_per_device(params)}
    with jax.set_mesh(program.mesh):
        begin = begin_batch.lower(model, Layout(n_slots, pad_id=0), params, prompts)
        prefill = compile_lowered(begin, known_bytes)
        if prefill.executable is None:
            return {"prefill": prefill}
        cache, state, _ = abstract(begin.out_info, prefill.executable.output_shardings)
        advance = advance_batch.lower(
            model, SamplingProgram(), params, cache, state, settings, flags_B, count
        )
        decode = compile_lowered(advance, known_bytes | {"cache": bytes_per_device(cache)})
    return {"prefill": prefill, "decode": decode}
