r"""`ift eval`.

For example:
  ift eval --config configs/quickstart.py --workdir runs/quickstart
  ift eval --config configs/quickstart.py --workdir runs/quickstart --which heldout \
    --output heldout.json --config.evaluation.examples=50
  ift eval --config configs/smollm2_135m.py --workdir runs/tuned --which heldout \
    --untuned runs/smollm2_135m_instruct --shots 5
"""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments
from ift_jax.config.schema import Config
from ift_jax.errors import UserError

if TYPE_CHECKING:  # `ift eval --help` needs no JAX.
    from ift_jax.checkpoint.model_source import ModelSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)
    arguments.add_model(parser)
    parser.add_argument("--which", choices=("eval", "heldout"), default="eval")
    parser.add_argument(
        "--output", type=arguments.local_path, metavar="FILE", help="scores and answers as JSON"
    )
    parser.add_argument(
        "--untuned",
        metavar="DIR",
        help="a model to compare with, such as that which the run "
        "began from: it answers behind --shots solved examples",
    )
    parser.add_argument("--shots", type=int, choices=(1, 5, 32), default=5, help="default: 5")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    config = arguments.load_config(args)
    if config.evaluation.examples < 1:
        raise UserError("config.evaluation.examples: expected at least 1 to evaluate")
    from ift_jax.checkpoint.model_source import open_model_source
    from ift_jax.evaluation.few_shot_config import in_context_config

    result = _evaluate(config, open_model_source(args.workdir, args.step), args.which)
    if args.untuned:
        untuned = open_model_source(args.untuned)
        few = in_context_config(config, untuned.config, args.which, args.shots)
        result["untuned"] = _evaluate(few, untuned, args.which, args.shots)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


def _evaluate(config: Config, source: "ModelSource", which: str, shots: int = 0) -> dict[str, Any]:
    import jax

    from ift_jax.checkpoint.workdir_model import load_model
    from ift_jax.evaluation.evaluate import evaluate, table
    from ift_jax.evaluation.text_generator import TextGenerator
    from ift_jax.preparation.open_or_prepare import open_or_prepare

    trained = load_model(source)
    wanted, found = config.model.architecture, trained.config.model.architecture
    where = f"the model in {source.path}"
    if wanted != found:
        raise UserError(f"config.model.architecture: is {wanted!r}, {where} is {found!r}")
    tokenizer, view = open_or_prepare(config, which)
    if tokenizer.fingerprint != trained.tokenizer.fingerprint:
        raise UserError(f"config.tokenizer: expected that of {where}; it is another one")
    # The model's own shape; format, data and evaluation are the config's.
    config = dataclasses.replace(config, model=trained.config.model)
    with jax.set_mesh(jax.tree.leaves(trained.params)[0].sharding.mesh):
        result = evaluate(TextGenerator(config, tokenizer, trained.model), trained.params, view)
    title = f"untuned, {shots}-shot: {source.path}" if shots else f"{which}, step {trained.step}"
    print(*table(title, result), sep="\n")
    return {"which": which, "step": trained.step, **result}
