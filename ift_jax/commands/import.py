"""`ift import`.

For example:
  ift import models/SmolLM2-135M-Instruct --workdir runs/smollm2
  ift import SmolLM2-135M-Instruct.Q4_1.gguf --workdir runs/smollm2
"""

import argparse

from ift_jax.commands import arguments
from ift_jax.io.outputs import new_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("source", metavar="SOURCE", help="a Hugging Face folder or a .gguf file")
    arguments.add_workdir(parser, "the workdir to make")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.checkpoint.import_model import import_model

    with new_output(args.workdir, "--workdir"):
        loaded = import_model(args.source, args.workdir)
    config = loaded.config
    print(
        f"{loaded.model.n_params:,} parameters, {config.model.architecture}; tokenizer of "
        f"{loaded.tokenizer.vocab_size:,} ids; template {config.format.template}"
    )
    print(f"workdir: {args.workdir}")
