"""The programs of generation compiled for a topology: reading the prompts, and making tokens."""

import functools

import jax
import jax.numpy as jnp

from ift_jax.decoding.decode_batch import advance_batch, begin_batch
from ift_jax.decoding.generate import bucket
from ift_jax.decoding.sampling import Sampling
from ift_jax.models.model import Model
from ift_jax.planning.compile_step import Compiled, bytes_a_device, compile_lowered
from ift_jax.sharding import rules
from ift_jax.sharding.trees import abstract
from ift_jax.training.train_program import TrainProgram


def compile_generation(program: TrainProgram) -> dict[str, Compiled]:
    """What `Generator` runs on the config's evaluation: "prefill", and if that fits "decode".

    Of `evaluation.batch_size` prompts that fill a row but for `evaluation.max_new_tokens`,
    greedily; weights in the compute dtype, cut by their logical axes.
    """
    model, asked = program.model.unrolled, program.config.evaluation
    inputs_length, length = program.config.row_lengths
    places = bucket(inputs_length or max(length - asked.max_new_tokens, 1))
    n_slots = bucket((1 if inputs_length else places) + asked.max_new_tokens)
    shapes = jax.eval_shape(functools.partial(Model.unstack, program.model), program.model.shapes)
    cut = rules.tree_shardings(program.mesh, model.logical_axes, shapes)
    params, like, rows = abstract(shapes, cut), jax.ShapeDtypeStruct, asked.batch_size
    ints_B, key = like((rows,), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    given = (params, like((rows, places), jnp.int32), ints_B, ints_B, key)
    held = {"parameters": bytes_a_device(params)}
    with jax.set_mesh(program.mesh):
        begin = begin_batch.lower(model, n_slots, 0, False, False, *given)
        done = {"prefill": compile_lowered(begin, held)}
        if made := done["prefill"].executable:
            state = abstract(begin.out_info, made.output_shardings)
            given = (params, *state, like((rows,), jnp.bool_), like((), jnp.int32))
            advance = advance_batch.lower(model, (), Sampling(), *given)
            held = held | {"cache": bytes_a_device(state[0])}
            done["decode"] = compile_lowered(advance, held)
    return done
