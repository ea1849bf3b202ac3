"""`ift generate`.

For example:
  ift generate --workdir runs/quickstart --prompt "Sort these words: plum, apple, fig"
  ift generate --workdir runs/quickstart --prompts prompts.jsonl --output answers.jsonl

A line of a prompts file: {"inputs": "..."} or {"messages": [{"role": "user", "content": "..."}]}.
The same command again continues an output that is not complete.
"""

import argparse
import json
import sys

from ift_jax.commands import arguments
from ift_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="one prompt")
    source.add_argument("--prompts", metavar="FILE", help="JSON lines of prompts")
    parser.add_argument(
        "--output",
        type=arguments.local_path,
        metavar="FILE",
        help="JSON lines; default: the terminal",
    )
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    arguments.add_generation(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.evaluation import batch_prompts as files
    from ift_jax.evaluation.text_generator import open_text_generator

    options = arguments.generation_options(args, args.max_new_tokens)
    if args.batch_size < 1:
        raise UserError("--batch-size: expected at least 1")
    prompts = [("--prompt", {"inputs": args.prompt})]
    if args.prompts:
        prompts = list(files.read_prompts(args.prompts))
    text_generator, generator = open_text_generator(args.workdir, args.step, args.stop)
    done = 0
    if args.output:
        settings = files.settings(text_generator, generator, options, args.batch_size)
        done = files.continue_file(args.output, settings, prompts)
    for answers in files.answer_windows(
        text_generator, generator, prompts, options, batch_size=args.batch_size, done=done
    ):
        if args.output:
            files.append(args.output, answers)
        elif args.prompt:
            print(answers[0]["answer"])
        else:
            sys.stdout.writelines(json.dumps(a, ensure_ascii=False) + "\n" for a in answers)
            sys.stdout.flush()
    if args.output:
        print(f"{len(prompts)} answers in {args.output}; {done} of them were there")
