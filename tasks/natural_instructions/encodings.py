"""Super-NaturalInstructions under every encoding of Tk-Instruct (arXiv:2204.07705).

`register(root)` reads the same folder as `tasks.natural_instructions.tasks` and registers its
default track once an encoding, as `natural_instructions_<encoding>_<task>` with the mixtures
`natural_instructions_<encoding>_train` and `_heldout`:

- `definition`, `positive2`, `definition_positive2`, `definition_positive2_negative2`,
  `definition_positive2_explanations`: what the prompt shows;
- `five_way`: each training instance is asked with one of the five, drawn anew each variant;
  held-out tasks are asked with `definition_positive2`;
- `cap64`: 64 training instances a task, the point where the paper's ablation levels off (from
  the paper, unverified), with `definition_positive2`.

Own options: a module of yours whose `register(root)` calls `natural_instructions.register_track`,
e.g. with `NaturalInstructionsOptions(tokenizer=..., max_tokens=1024)`, which fits demonstrations
by the model's own tokens instead of characters.
"""

import dataclasses

from tasks.natural_instructions import tasks as natural_instructions
from tasks.natural_instructions.prompts import ENCODINGS, NaturalInstructionsOptions, encoded

NAMES = (*ENCODINGS, "five_way", "cap64")


def register(root: str, options: NaturalInstructionsOptions | None = None) -> None:
    """Registers every encoding of the default track.

    Raises:
      UserError: as `tasks.natural_instructions.tasks.register`.
    """
    options = options or NaturalInstructionsOptions()
    for name in NAMES:
        if name == "cap64":
            chosen = dataclasses.replace(options, train_cap=64)
        else:
            chosen = encoded(options, name)
        prefix = f"{natural_instructions.PREFIX}_{name}"
        natural_instructions.register_track(root, prefix, options=chosen)
