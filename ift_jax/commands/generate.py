"""`ift generate`."""

import argparse
import json
import sys

from ift_jax.commands import arguments

EXAMPLE = """\
examples:
  ift generate --workdir runs/quickstart --prompt "Sort these words: plum, apple, fig"
  ift generate --workdir runs/quickstart --prompts prompts.jsonl --output answers.jsonl

A line of a prompts file: {"inputs": "..."} or {"messages": [{"role": "user", "content": "..."}]}.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_workdir(parser, "the workdir of a run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="one prompt")
    source.add_argument("--prompts", metavar="FILE", help="JSON lines of prompts")
    parser.add_argument("--output", metavar="FILE", help="JSON lines; default: the terminal")
    parser.add_argument("--step", type=int, help="the checkpoint; default: the newest")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, help="0: all (default)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.checkpoint.trained import load_trained
    from ift_jax.decoding.sampling import Sampling
    from ift_jax.errors import UserError
    from ift_jax.evaluation.prompts import answer_prompts, read_prompts

    try:
        Sampling(args.temperature, args.top_k, args.top_p)
    except ValueError as error:
        raise UserError(str(error)) from error
    if args.max_new_tokens < 1 or args.batch_size < 1:
        raise UserError("--max-new-tokens and --batch-size: expected at least 1")
    prompts = [("--prompt", {"inputs": args.prompt})]
    if args.prompts:
        prompts = list(read_prompts(args.prompts))
    answers = answer_prompts(
        load_trained(args.workdir, args.step), prompts,
        max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_k=args.top_k,
        top_p=args.top_p, seed=args.seed, batch_size=args.batch_size,
    )  # fmt: skip
    if args.prompt:
        print(answers[0]["answer"])
        return
    lines = [json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers]
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.writelines(lines)
        print(f"{len(lines)} answers in {args.output}")
    else:
        sys.stdout.writelines(lines)
