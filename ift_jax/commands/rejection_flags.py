"""The flags of `ift synthesize rejection`."""

import argparse

from ift_jax.commands import arguments


def add_models(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name the models that answer and are trained."""
    parser.add_argument(
        "--model",
        default="",
        metavar="DIR",
        help="the starting model: a Hugging Face folder or the workdir of a run",
    )
    parser.add_argument(
        "--endpoint",
        default="",
        metavar="URL",
        help="sample from a model behind an API like OpenAI's instead, such as "
        "http://localhost:8000/v1",
    )
    parser.add_argument(
        "--endpoint-model",
        default="",
        metavar="NAME",
        help="with --endpoint, the model's name there",
    )


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for the prompts and the output."""
    parser.add_argument(
        "--prompts",
        required=True,
        metavar="FILE",
        help="the prompts: JSON lines, a JSON array, Parquet, or Arrow",
    )
    parser.add_argument(
        "--prompt-field",
        default="",
        metavar="NAME",
        help="the field whose text is the prompt, for rows in a layout that training does not read",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=arguments.local_path,
        metavar="DIR",
        help="the folder in which each round gets one",
    )


def add_reward(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say what a completion is worth."""
    group = parser.add_argument_group("the reward")
    kind = group.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--reward",
        metavar="NAME",
        help="exact-match (with the row's answer), number (the last one, or the one after '####', "
        "as GSM8K compares), ifeval (the share of the row's verifiable instructions), "
        "regex:PATTERN (1 if it is found), or your own function, file.py:function or "
        "module:function",
    )
    kind.add_argument(
        "--reward-model",
        metavar="DIR",
        help="a Hugging Face folder of a sequence-classification model with one label",
    )
    kind.add_argument(
        "--judge",
        metavar="DIR",
        help="a model whose mean log-probability of the completion's tokens is the reward",
    )
    group.add_argument(
        "--answer-field",
        default="",
        metavar="NAME",
        help="with --reward, the field with the right answer; default: targets, answer, output, or "
        "completion, or the assistant's turn that ends messages",
    )
    group.add_argument(
        "--reward-timeout",
        type=arguments.number,
        metavar="SECONDS",
        help="time limit of one call of a --reward function; default: 10",
    )
    group.add_argument(
        "--judge-question",
        default="",
        metavar="TEXT",
        help="ask the judge this, with {prompt} and {completion} in it, instead",
    )
    group.add_argument(
        "--judge-answer",
        default="",
        metavar="TEXT",
        help="the answer whose log-probability is then the reward, such as Yes",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how completions are drawn."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--samples",
        type=arguments.whole_number(1),
        default=8,
        metavar="N",
        help="completions per prompt; default: 8",
    )
    group.add_argument(
        "--temperature",
        type=arguments.number,
        default=1.0,
        metavar="F",
        help="sampling temperature; 0: greedy; default: 1",
    )
    group.add_argument(
        "--top-p",
        type=arguments.number,
        default=1.0,
        metavar="F",
        help="sample from the most likely tokens with this total probability; default: 1",
    )
    group.add_argument(
        "--max-new-tokens",
        type=arguments.whole_number(1),
        default=256,
        metavar="N",
        help="the most tokens of a completion; default: 256",
    )
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="STRING",
        help="a text that ends a completion; repeatable",
    )
    group.add_argument(
        "--seed",
        type=arguments.whole_number(0),
        default=0,
        metavar="N",
        help="seed of the samples and of the control; default: 0",
    )
    group.add_argument(
        "--batch-size",
        type=arguments.whole_number(1),
        default=32,
        metavar="N",
        help="completions that are made, or judged, together; default: 32",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which completions are selected."""
    group = parser.add_argument_group("selection")
    group.add_argument(
        "--top",
        type=arguments.whole_number(1),
        default=0,
        metavar="K",
        help="select the K completions with the highest rewards of all; default: the best one of "
        "each prompt",
    )
    group.add_argument(
        "--threshold",
        type=arguments.number,
        metavar="REWARD",
        help="the lowest reward that is selected; default: 1 for built-in --reward names, none for "
        "others",
    )
    group.add_argument(
        "--keep-unfinished",
        action="store_true",
        help="also select from completions that --max-new-tokens cut off",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say what is trained on them."""
    group = parser.add_argument_group(
        "training",
        "The starting model is finetuned on what is selected, as ift train --model --data does; "
        "fields of the config are set by --config.SECTION.FIELD=VALUE.",
    )
    group.add_argument("--train", action="store_true", help="train even if there is a single round")
    group.add_argument(
        "--rounds",
        type=arguments.whole_number(1),
        default=1,
        metavar="R",
        help="number of rounds; each samples from the model that the previous round trained; "
        "default: 1, without training",
    )
    group.add_argument(
        "--train-control",
        action="store_true",
        help="train a second model in each round, on the matched random selection",
    )
    parser.set_defaults(config=None)  # So that --config.SECTION.FIELD is a flag of the command.
