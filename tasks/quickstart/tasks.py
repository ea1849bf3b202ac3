"""The quickstart: small instruction tasks whose text is made by code, from nothing.

Registers a SeqIO task `quickstart_<name>` for each instruction of `quickstart_text` and
`quickstart_data`, and the mixtures

- `quickstart_train`: all clusters but `HELD_OUT`, splits "train" and "validation" (items that
  training never sees), in proportion to their sizes;
- `quickstart_heldout`: the tasks of the cluster `HELD_OUT`, split "test".
"""

from ift_jax.metrics import exact_match
from ift_jax.sources.register import register_mixture, register_task
from tasks.quickstart import data as quickstart_data
from tasks.quickstart import instruction as quickstart_instruction
from tasks.quickstart import text as quickstart_text
from tasks.quickstart import words as quickstart_words

HELD_OUT = "reading"
TRAIN_MIXTURE = "quickstart_train"
HELDOUT_MIXTURE = "quickstart_heldout"

INSTRUCTIONS = quickstart_text.TEXT_INSTRUCTIONS + quickstart_data.DATA_INSTRUCTIONS
_MODULES = tuple(
    module.__file__
    for module in (quickstart_data, quickstart_instruction, quickstart_text, quickstart_words)
)


def _register() -> None:
    names: dict[bool, list[str]] = {True: [], False: []}
    for instruction in INSTRUCTIONS:
        held_out = instruction.cluster == HELD_OUT
        source = quickstart_instruction.InstructionSource(instruction, _MODULES, held_out=held_out)
        name = f"quickstart_{instruction.name}"
        register_task(name, source, metric_fns=[exact_match])
        names[held_out].append(name)
    register_mixture(TRAIN_MIXTURE, names[False])
    register_mixture(HELDOUT_MIXTURE, [(name, 1.0) for name in names[True]])


_register()
