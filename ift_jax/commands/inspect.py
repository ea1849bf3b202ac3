"""`ift inspect`.

For example:
  ift inspect
  ift inspect gsm8k --config.data.root=data
  ift inspect --model /models/SmolLM2-135M-Instruct --data chats.jsonl
  ift inspect --config configs/quickstart.py
  ift inspect --config configs/quickstart.py --lint
  ift inspect --config configs/quickstart.py --task quickstart_topic --examples 5
  ift inspect --config configs/quickstart.py --html mixture.html
  ift inspect natural_instructions_train --config.data.root=data --all
"""

import argparse
import dataclasses

from ift_jax.commands import arguments, run_config
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.inspection import default_config
from ift_jax.io.outputs import file_output, write_output

_EXAMPLES = 1  # How many each task shows.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "mixture",
        nargs="?",
        help="a mixture or task to show without a config file; with neither, the names of all "
        "mixtures are listed",
    )
    arguments.add_config(parser, required=False)
    arguments.add_stage(parser)
    run_config.add_model_and_data(parser)
    parser.add_argument(
        "--which",
        choices=("train", "eval", "heldout"),
        help="which of the config's mixtures to show; default: train",
    )
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="show only this task; repeatable"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="list every task and its examples, however many; otherwise a mixture of many tasks "
        "is summarized",
    )
    parser.add_argument("--lint", action="store_true", help="only check the chat template")
    parser.add_argument(
        "--examples",
        type=arguments.whole_number(0),
        metavar="N",
        help=f"examples per task; default: {_EXAMPLES}",
    )
    parser.add_argument(
        "--html",
        type=arguments.local_path,
        metavar="FILE",
        help="write a page instead: every token with its role and weight, packed rows, plots",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    if args.mixture and args.config:
        raise UserError("expected the name of a mixture, or --config FILE, not both")
    if args.lint:
        arguments.check_not_given(
            args, ("task", "all", "examples", "html"), "has no use beside --lint"
        )
    if args.html:
        arguments.check_not_given(args, ("all",), "has no use beside --html")
    if not args.config and args.stage:
        raise UserError(f"--stage {args.stage}: expected --config FILE with stages beside it")
    if args.lora and not (args.model or args.data):
        raise UserError("--lora: expected --model DIR with --data FILES beside it")
    if args.model or args.data:
        if args.mixture:
            raise UserError("expected the name of a mixture, or --model with --data, not both")
        _show(run_config.load(args).config, args)
        return
    without_file = not args.config
    if without_file:
        if not args.mixture:
            flags = ("which", "task", "all", "lint", "examples", "html")
            arguments.check_not_given(args, flags, "has no use without a mixture")
        argument = f":{args.mixture}" if args.mixture else ""
        args.config = f"{default_config.__file__}{argument}"
    config = arguments.load_config(args)
    if without_file:
        from ift_jax.inspection import listing

        if not args.mixture:
            print(*listing.lines(config.data), sep="\n")
            return
        if not any(word.startswith("--config.data.split") for word in args.overrides):
            config = dataclasses.replace(config, data=listing.with_split(config.data))
    _show(config, args)


def _show(config: Config, args: argparse.Namespace) -> None:
    with file_output(args.html, "--html"):
        _show_or_write(config, args)


def _show_or_write(config: Config, args: argparse.Namespace) -> None:
    from ift_jax.inspection.inspection_page import inspection_page
    from ift_jax.inspection.mixture_tables import check_tasks, show
    from ift_jax.preparation.open_or_prepare import open_or_prepare
    from ift_jax.text.examples import ExampleFormatter
    from ift_jax.text.template_lint import lint

    which = args.which or "train"
    n_examples = _EXAMPLES if args.examples is None else args.examples
    tokenizer, mixture = open_or_prepare(config, which)
    if not args.lint:
        tasks = args.task or ()
        check_tasks(mixture, tasks)
        shown = (config, which, mixture, tokenizer, tasks, n_examples)
        if args.html:
            write_output(args.html, inspection_page(*shown).encode())
            print(args.html)
        else:
            show(*shown, list_all=args.all)
        return
    findings = lint(ExampleFormatter.from_config(config, tokenizer))
    for finding in findings:
        print(finding)
    if wrong := [finding.check for finding in findings if not finding.ok]:
        raise UserError(f"config.format.template: {', '.join(wrong)}: see above")
