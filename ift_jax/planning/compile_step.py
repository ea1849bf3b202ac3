"""The train step of a run, compiled for a TPU topology that this machine does not have."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.models.model import resolve_vocab
from ift_jax.planning.topology import devices_of
from ift_jax.text.tokenizers.load import load_tokenizer
from ift_jax.training.train_program import TrainProgram

# The steps of a run whose length its data decide: the schedule needs some number.
ASSUMED_STEPS = 1000
# The parts of a train state -> what a plan calls them.
_STATE_PARTS = {"params": "parameters", "frozen": "frozen parameters", "opt_state": "optimizer"}


class CompilerFault(UserError):
    """The compiler failed on a program, although that may fit into the memory of a device."""


def program_of(config: Config, topology: str, slices: int = 1, n_tasks: int = 1) -> TrainProgram:
    """Return the program of a run on a topology, without weights or data.

    Args:
        config: The run's config.
        topology: "v5p:4x4x4".
        slices: The number of such slices.
        n_tasks: The tasks of the mixture; the step keeps a loss for each.

    Raises:
        UserError: See `devices_of` and `TrainProgram.from_config`; or the size of the vocabulary is
            unknown, as the tokenizer is not on this machine.
    """
    tokenizer = config.tokenizer
    vocab_size = config.model.vocab_size or tokenizer.train_vocab_size
    if not vocab_size:
        if not os.path.exists(tokenizer.path):
            missing = tokenizer.path or config.model.init_from
            raise UserError(f"config.model.vocab_size: not known, as {missing} is not here; set it")
        vocab_size = load_tokenizer(tokenizer.path, tokenizer).vocab_size
    config = dataclasses.replace(config, model=resolve_vocab(config.model, vocab_size))
    n_steps = config.train.steps or ASSUMED_STEPS
    return TrainProgram.from_config(config, n_tasks, n_steps, devices_of(topology, slices))


def bytes_per_device(tree: Any) -> int:
    """Return the bytes of a tree's arrays (shapes with shardings) on one device, unpadded."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program, or why it made nothing.

    Attributes:
        seconds: The time that it took.
        known_bytes: The bytes on a device of each kind of argument, and of the "gradients".
        executable: The compiled program; None: it does not fit into the memory of a device.
        refusal: The compiler's words if it does not fit.
    """

    seconds: float
    known_bytes: Mapping[str, int]
    executable: Any = None
    refusal: str = ""

    @property
    def memory(self) -> dict[str, Any]:
        """Bytes on a device: the `parts` by kind, and, if the program fits, `total` and `live`.

        The total is what the program takes: the compiler's sum of its code, arguments, temporaries,
        and outputs that do not reuse an argument's buffer. The compiler sets aside all temporaries
        from beginning to end, so no moment takes more, and the peak is the total. `live` is its
        figure for the arrays that are live at the worst moment, those in on-chip memory included:
        less than the total where temporaries leave gaps, and more in a program so small that its
        arrays stay on the chip. If the program does not fit, the parts are what is known
        beforehand.
        """
        if self.executable is None:
            return {"parts": dict(self.known_bytes)}
        analysis = self.executable.memory_analysis()
        parts = {name: size for name, size in self.known_bytes.items() if name != "gradients"}
        # The compiler keeps arrays in tiles, and drops arguments that it does not read.
        beyond_known = analysis.argument_size_in_bytes - sum(parts.values())
        parts["padding" if beyond_known >= 0 else "not read"] = beyond_known
        temporaries = analysis.temp_size_in_bytes
        gradients = min(self.known_bytes.get("gradients", 0), temporaries)
        parts["gradients"] = gradients
        parts["activations, temporaries"] = temporaries - gradients
        outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        parts["outputs"] = outputs
        program = analysis.generated_code_size_in_bytes
        parts["program"] = program
        return {
            "parts": parts,
            "total": analysis.argument_size_in_bytes + temporaries + outputs + program,
            "live": analysis.peak_memory_in_bytes,
        }


def compile_step(program: TrainProgram) -> Compiled:
    """Compile the whole train step, as a run executes it."""
    state = program.state_shapes
    known_bytes = {
        what: bytes_per_device(state[name]) for name, what in _STATE_PARTS.items() if name in state
    }
    known_bytes["batch"] = bytes_per_device(program.batch_shapes)
    counters = {name: part for name, part in state.items() if name not in _STATE_PARTS}
    known_bytes["counters"] = bytes_per_device(counters)
    known_bytes["gradients"] = known_bytes["parameters"]
    return compile_lowered(program.lower(), known_bytes)


def compile_lowered(lowered: jax.stages.Lowered, known_bytes: Mapping[str, int]) -> Compiled:
    """Compile a program; one that needs more memory than a device has is no error.

    Raises:
        CompilerFault: The compiler failed for another reason.
    """
    start = time.perf_counter()
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            said = " ".join(str(error).split())[:300]
            raise CompilerFault(
                f"the TPU's compiler failed: {said}; another chip, row length or number of heads "
                "may compile; --debug shows the traceback"
            ) from error
        seconds = time.perf_counter() - start
        return Compiled(seconds, known_bytes, refusal=_first_sentences(str(error)))
    return Compiled(time.perf_counter() - start, known_bytes, executable)


def _first_sentences(message: str) -> str:
    """The first three sentences after the error's code, on one line."""
    _, _, text = " ".join(message.split()).partition("RESOURCE_EXHAUSTED: ")
    return ". ".join(text.split(". ")[:3])[:400]


def model_flops(program: TrainProgram) -> float:
    """Return the model FLOPs of a step, forward and backward.

    Each row is one example that fills it, and every token is trained.
    """
    lengths = program.config.row_lengths
    per_token = program.model.flops_per_token(
        [lengths.decoder], [lengths.decoder], [lengths.encoder]
    )
    return per_token * program.config.train.batch_size * lengths.total
