"""Super-NaturalInstructions with every encoding of Tk-Instruct (arXiv:2204.07705).

`register(root)` reads the same folder as `tasks.natural_instructions.tasks` and registers its
default track once for each encoding, as `natural_instructions_<encoding>_<task>` with the mixtures
`natural_instructions_<encoding>_train` and `_heldout`:

- `definition`, `positive2`, `definition_positive2`, `definition_positive2_negative2`,
  `definition_positive2_explanations`: named after what the prompt shows;
- `five_way`: each training instance is asked with one of these five, drawn anew for each variant;
  held-out tasks are asked with `definition_positive2`;
- `cap64`: 64 training instances of a task, the point where the paper's ablation levels off (we
  have not verified this), with `definition_positive2`.

For other options write a module whose `register(root)` calls `register_track` of
`tasks.natural_instructions.tasks`, for example with
`NaturalInstructionsOptions(tokenizer=..., max_tokens=1024)`, which fits examples by the model's
own tokens instead of characters.
"""

import dataclasses

from tasks.natural_instructions import tasks as natural_instructions
from tasks.natural_instructions.prompts import ENCODINGS, NaturalInstructionsOptions, encoded

NAMES = (*ENCODINGS, "five_way", "cap64")


def register(root: str, options: NaturalInstructionsOptions | None = None) -> None:
    """Register the default track with every encoding.

    Raises:
        UserError: The folder cannot be used; see `tasks.natural_instructions.tasks.register`.
    """
    options = options or NaturalInstructionsOptions()
    for name in NAMES:
        if name == "cap64":
            chosen = dataclasses.replace(options, train_cap=64)
        else:
            chosen = encoded(options, name)
        prefix = f"{natural_instructions.PREFIX}_{name}"
        natural_instructions.register_track(root, prefix, options=chosen)
