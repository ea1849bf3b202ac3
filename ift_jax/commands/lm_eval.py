r"""`ift lm-eval`: the command line of lm-evaluation-harness, with the model `ift_jax` registered.

For example:
  ift lm-eval --model ift_jax --model_args workdir=runs/quickstart --tasks hellaswag --batch_size 16
  ift lm-eval --model ift_jax --model_args model=/path/to/folder --tasks gsm8k --batch_size 16 \
    --apply_chat_template --fewshot_as_multiturn true
  ift lm-eval ls tasks
  ift lm-eval run --help

Every word goes to lm-evaluation-harness. Those of --model_args are
  workdir=DIR or model=DIR    a run's workdir, a Hugging Face folder, or a GGUF file
  step=N                      the checkpoint of a run; default: the newest
  max_length=N                the context; default: the model's own
  max_gen_toks=N              tokens of an answer where the task does not say; default: 256
  add_bos_token=true|false    whether BOS comes before a text; default: as the tokenizer says
  seed=N                      of sampled answers; default: 0
"""

import argparse
from collections.abc import Sequence

from ift_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> int:
    """Shows the help of lm-evaluation-harness."""
    return run_program(["--help"])


def run_program(words: Sequence[str]) -> int:
    """Runs the command line of lm-evaluation-harness.

    Args:
        words: its arguments.

    Returns:
        The exit status.

    Raises:
        UserError: lm-evaluation-harness is not installed, or complains itself.
    """
    try:
        from ift_jax.evaluation.harness.command_line import run_command_line
    except ImportError as error:
        raise UserError(f"ift lm-eval: {error}; run launch/setup.sh lm-eval") from error
    return run_command_line(words)
