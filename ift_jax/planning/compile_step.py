"""A run compiled for a TPU topology that is not here: whether it fits, and what it holds."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax

from ift_jax.checkpoint.model_source import read_tokenizer
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.models.model import resolve_vocab
from ift_jax.planning.topology import devices_of
from ift_jax.training.train_program import TrainProgram

STEPS = 1000  # Of a run whose length its data decides: the schedule needs a number.
_STATE = {"params": "parameters", "frozen": "frozen parameters", "opt_state": "optimizer"}


def program_of(config: Config, topology: str, slices: int = 1, n_tasks: int = 1) -> TrainProgram:
    """The program of a config over a topology's devices; needs neither weights nor data.

    Raises:
        UserError: as `devices_of` and `TrainProgram.from_config`, or the vocabulary is not known.
    """
    given, size = config.tokenizer, config.model.vocab_size or config.tokenizer.train_vocab_size
    if not size and not os.path.exists(given.path):
        missing = given.path or config.model.init_from
        raise UserError(f"config.model.vocab_size: not known, as {missing} is not here; set it")
    model = resolve_vocab(config.model, size or read_tokenizer(given).vocab_size)
    config, n_steps = dataclasses.replace(config, model=model), config.train.steps or STEPS
    return TrainProgram.from_config(config, n_tasks, n_steps, devices_of(topology, slices))


def bytes_a_device(tree: Any) -> int:
    """What the arrays of a tree (shapes with shardings) take on one device, without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program, or why it did not."""

    seconds: float
    held: Mapping[str, int]  # Bytes a device of what it is given, and of the gradients.
    executable: Any = None  # None: does not fit.
    refusal: str = ""

    @property
    def memory(self) -> dict[str, Any]:
        """Bytes a device: `parts` by kind, and where it fits their `total`, and the `peak`.

        The total is the compiler's: arguments, temporaries, and outputs that take no argument's
        place; the peak its count of the worst moment. Else the parts are what is known.
        """
        if self.executable is None:
            return {"parts": dict(self.held)}
        m = self.executable.memory_analysis()
        given = {name: size for name, size in self.held.items() if name != "gradients"}
        gradients = min(self.held.get("gradients", 0), m.temp_size_in_bytes)
        more = m.argument_size_in_bytes - sum(given.values())
        parts = given | {
            # The compiler keeps arrays in tiles, and leaves out those that it does not read.
            "padding" if more >= 0 else "not read": more,
            "gradients": gradients,
            "activations, temporaries": m.temp_size_in_bytes - gradients,
            "outputs": m.output_size_in_bytes - m.alias_size_in_bytes,
        }
        return {"parts": parts, "total": sum(parts.values()), "peak": m.peak_memory_in_bytes}


def compile_step(program: TrainProgram) -> Compiled:
    """Compiles the real train step, whole."""
    state = program.state_shapes
    held = {what: bytes_a_device(state[name]) for name, what in _STATE.items() if name in state}
    held["batch"] = bytes_a_device(program.batch_shapes)
    held["counters"] = bytes_a_device({n: part for n, part in state.items() if n not in _STATE})
    held["gradients"] = held["parameters"]
    return compile_lowered(program.lower(), held)


def compile_lowered(lowered: jax.stages.Lowered, held: Mapping[str, int]) -> Compiled:
    """Compiles; what needs more memory than a device has is an answer, not an error."""
    began = time.perf_counter()
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = " ".join(str(error).split()).partition("RESOURCE_EXHAUSTED: ")[2]
        said = ". ".join(said.split(". ")[:3])[:400]
        return Compiled(time.perf_counter() - began, held, refusal=said)
    return Compiled(time.perf_counter() - began, held, executable)


def model_flops(program: TrainProgram) -> float:
    """Model FLOPs of a step, forward and backward, of full rows of one example, all trained."""
    lengths = program.config.row_lengths
    a_token = program.model.flops_per_token([lengths.decoder], [lengths.decoder], [lengths.encoder])
    return a_token * program.config.train.batch_size * lengths.total
