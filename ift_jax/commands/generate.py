"""`ift generate`.

For example:
  ift generate --workdir runs/quickstart --prompt "Sort these words: plum, apple, fig"
  ift generate --workdir runs/quickstart --prompts prompts.jsonl --output answers.jsonl
  ift generate --workdir runs/t5 --prompts prompts.jsonl --num-beams 4 --length-penalty 0.6

A line of a prompts file is {"inputs": "..."}, {"prompt": "..."},
{"messages": [{"role": "user", "content": "..."}]}, or Alpaca's {"instruction": "...", "input":
"..."}. A line of training data will do; its answer is not read. A whole number in the field "seed"
seeds the sampling of its line. The answer is added to the line: "answer", "stopped" and
"new_tokens", or with --n a list "answers" of these.
SIGTERM or Ctrl-C ends it after the current batch. The same command again continues an output file
that is not complete.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments
from ift_jax.errors import counted
from ift_jax.io.outputs import file_output
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:
    from ift_jax.decoding import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="one prompt")
    source.add_argument("--prompts", metavar="FILE", help="a file of prompts as JSON lines")
    parser.add_argument(
        "--output",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write the answers as JSON lines; default: the terminal",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=arguments.whole_number(1),
        default=128,
        metavar="N",
        help="the most tokens of an answer; default: 128",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=arguments.whole_number(1),
        default=0,
        metavar="N",
        help="the most tokens of a prompt; default: what the model was made for or, if it has no "
        "maximum, was trained on",
    )
    parser.add_argument(
        "--batch-size",
        type=arguments.whole_number(1),
        default=32,
        metavar="N",
        help="rows that are decoded together, one for each answer or beam; default: 32",
    )
    arguments.add_generation(parser)
    arguments.add_answers(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the status of a signal that stopped it."""
    from ift_jax.evaluation.answer_settings import check_continuable

    with file_output(args.output, "--output", appends=True):
        if args.output:
            check_continuable(args.output)
        return _answer(args)


def _answer(args: argparse.Namespace) -> int:
    """Answers the prompts, and writes or prints the answers."""
    from ift_jax.evaluation import batch_prompts
    from ift_jax.evaluation.finished_batches import FinishedBatches
    from ift_jax.evaluation.text_generator import describe_text_generator, load_generator
    from ift_jax.io.files import append_json_lines

    options = arguments.generation_options(args, args.max_new_tokens)
    if args.prompts is not None:
        prompts = batch_prompts.read_prompts(args.prompts)
    else:
        prompts = [batch_prompts.checked_prompt("--prompt", {"inputs": args.prompt})]
    source = arguments.open_model(args)
    text_generator = describe_text_generator(source, args.stop)
    # All prompts are checked before the weights are read.
    ids = batch_prompts.prompt_ids(
        text_generator, prompts, args.max_new_tokens, args.max_prompt_tokens
    )
    requests = batch_prompts.requests_of(text_generator, prompts, ids, options)
    generator = load_generator(source, text_generator)
    signals = StopSignals()
    done = 0
    finished = None
    if args.output:
        settings = batch_prompts.settings(text_generator, generator, options, args.batch_size)
        done = batch_prompts.continue_file(args.output, settings, prompts)
        finished = FinishedBatches(args.output, settings)
    windows = batch_prompts.answer_windows(
        text_generator,
        generator,
        prompts,
        requests,
        batch_size=args.batch_size,
        done=done,
        finished=finished,
        stopped=signals.received,
    )
    n_answers = done
    with signals:
        for answers in windows:
            n_answers += len(answers)
            if args.output:
                append_json_lines(args.output, answers)
            elif args.prompts is None and _is_plain(options):
                print(answers[0]["answer"])
            else:
                _print(answers)
    if n_answers < len(prompts):
        cure = "; the same command continues" if args.output else ""
        line = f"stopped by a signal: {n_answers} of {len(prompts)} answers{cure}"
        print(line, file=sys.stderr)
        return signals.exit_status()
    if args.output:
        print(f"{counted(n_answers, 'answer')} in {args.output}; {done} of them were there")
    return 0


def _is_plain(options: "Options") -> bool:
    """Whether an answer to a single prompt is printed as a text, not as JSON."""
    return options.n == 1 and options.logprobs is None and options.prompt_logprobs is None


def _print(answers: Sequence[Mapping[str, Any]]) -> None:
    """Print JSON lines."""
    # Where the terminal's encoding lacks characters, JSON has escapes of its own.
    is_utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=not is_utf8))
    sys.stdout.flush()
