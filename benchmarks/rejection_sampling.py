"""Rejection sampling against its matched random control, over several seeds.

    python -m benchmarks.rejection_sampling --task sums --output DIR [--seeds 5] [--rounds 1]
    python -m benchmarks.rejection_sampling --task brief --model FOLDER --output DIR [--seeds 1]

`sums`: a small model from scratch learns sums of two numbers below 100 from 1,425 examples, then
from its own completions of 1,000 other sums. `brief`: a chat model is asked for answers in at most
ten words. Each seed samples, trains on the selected completions and on the
control's, and answers the test's prompts greedily. Prints a line a seed and one of the differences;
`results.json` has them. The same command continues.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.commands.main import choose_platform, main

choose_platform()  # Before JAX is imported.

import numpy as np  # noqa: E402
from scipy.stats import t as student_t  # noqa: E402

from ift_jax.checkpoint.open_model import open_model_source  # noqa: E402
from ift_jax.evaluation.intervals import wilson_interval  # noqa: E402
from ift_jax.evaluation.paired_tests import mean_interval  # noqa: E402
from ift_jax.synthesis.generator import TextRequest  # noqa: E402
from ift_jax.synthesis.own_decoder import DecoderCompleter  # noqa: E402
from ift_jax.synthesis.reward_functions import FunctionSpec, load_function  # noqa: E402
from ift_jax.text.records import Message  # noqa: E402

AT_MOST_TEN_WORDS = r"regex:\A\S+(\s+\S+){0,9}\Z"
_THINGS = """
anchor, apron, arrow, axe, bag, ball, bandage, barn, basket, battery, bed, bell, belt, bench, bicycle, blanket, boat,
book, boot, bottle, bowl, box, bridge, broom, brush, bucket, button, cage, camera, candle, canoe, card, carpet, cart,
chain, chair, chalk, chimney, clock, coat, coin, comb, compass, cork, cradle, crane, crayon, cup, curtain, cushion,
desk, dictionary, door, drill, drum, envelope, eraser, fan, faucet, fence, ferry, file, flag, flashlight, flute, fork,
fountain, freezer, funnel, gate, glass, glove, glue, goggles, guitar, hammer, hammock, hanger, harp, hat, helmet, hinge,
hoe, hook, horn, hose, iron, jacket, jar, jug, kettle, key, kite, knife, ladder, ladle, lamp, lantern, lens, library,
lid, lighthouse, lock, magnet, map, mask, match, mattress, microscope, mirror, mixer, mop, mug, nail, napkin, necklace,
needle, net, newspaper, notebook, oar, oven, paddle, pail, paintbrush, pan, paper, parachute, pen, pencil, piano, pillow,
pin, pipe, plate, pliers, plow, plug, pocket, pot, printer, pump, purse, racket, radio, raft, rake, razor, refrigerator,
ribbon, ring, rope, ruler, sack, saddle, saw, scale, scarf, scissors, screw, shelf, ship, shirt, shoe, shovel, sieve,
sink, skate, sled, soap, sock, sofa, spade, spoon, sponge, stamp, stapler, stove, suitcase, sweater, table, telescope,
tent, thermometer, thread, ticket, tie, tile, toaster, towel, tower, toy, tractor, train, trumpet, umbrella, vase, vest,
violin, wagon, wallet, watch, wheel, whistle, window, wrench, zipper
"""  # noqa: E501

_SMALL_MODEL = {
    "tokenizer.train_vocab_size": 300,
    "model.d_model": 128,
    "model.n_layers": 3,
    "model.n_heads": 4,
    "model.n_kv_heads": 4,
    "model.head_dim": 32,
    "model.d_ff": 384,
    "model.qk_norm": "head",
    "data.max_length": 64,
    "train.batch_size": 8,
    "train.steps": 1500,
    "train.epochs": 0,
    "optimizer.learning_rate": 5e-3,
    "optimizer.b2": 0.98,
    "optimizer.warmup_steps": 60,
    "evaluation.examples": 0,
}
_QUIET = {
    "train.eval_every": 10_000,
    "train.save_every": 0,
    "train.keep_best": 0,
    "train.preview_every": 10_000,
    "train.preview_prompts": 1,
    "train.report": False,
}


class Task(NamedTuple):
    """What is sampled, trained, and scored.

    Attributes:
        reward: The name of the reward.
        pool: The rows to sample completions for.
        test: The rows to score answers to.
        flags: Flags of `ift synthesize rejection`.
        fields: Fields of the config of training.
        max_tokens: The most tokens of a completion.
    """

    reward: str
    pool: list[dict[str, str]]
    test: list[dict[str, str]]
    flags: list[str]
    fields: dict[str, Any]
    max_tokens: int


def sums(folder: Path) -> Task:
    """Return the task of sums; write the rows of the starting model."""
    pairs = [(a, b) for a in range(100) for b in range(100)]
    random.Random(0).shuffle(pairs)
    rows = [{"inputs": f"{a} + {b} =", "targets": str(a + b)} for a, b in pairs]
    write_rows(folder / "base.jsonl", rows[:1500])
    fields = {"train.epochs": 4, "train.batch_size": 16, "optimizer.learning_rate": 1e-3}
    fields["data.max_length"] = 64
    flags = ["--samples=8", "--batch-size=512"]
    return Task("exact-match", rows[1600:2600], rows[2600:3600], flags, fields, 8)


def brief(folder: Path) -> Task:
    """Return the task of answers in at most ten words."""
    things = [word.strip() for word in _THINGS.split(",")]
    random.Random(0).shuffle(things)
    rows = [
        {
            "inputs": f"What is {'an' if thing[0] in 'aeiou' else 'a'} {thing} used for? Answer in "
            "at most ten words."
        }
        for thing in things
    ]
    fields = {"train.epochs": 3, "train.batch_size": 2, "optimizer.learning_rate": 2e-4}
    fields["data.max_length"] = 128
    # So few rows may have none that a hash leaves for validation.
    fields["data.eval_split"] = "train"
    flags = ["--samples=4", "--batch-size=64"]
    return Task(AT_MOST_TEN_WORDS, rows[:64], rows[100:180], flags, fields, 32)


TASKS = {"sums": sums, "brief": brief}


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON lines; a file that is there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ift(words: list[str], fields: dict[str, Any], log: Path) -> None:
    """Run a command of `ift` in this process, with its output in a file."""
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main([*words, *overrides])
    if status:
        raise SystemExit(f"ift {' '.join(words)}: status {status}; see {log}")


def scores(model: str, task: Task) -> np.ndarray:
    """Return the reward of a model's greedy answer to each prompt of the test: float64[prompts]."""
    completer = DecoderCompleter.open(open_model_source(model), 512 if task.max_tokens < 16 else 40)
    requests = [
        TextRequest((Message("user", row["inputs"]),), task.max_tokens) for row in task.test
    ]
    reward = load_function(FunctionSpec(task.reward))
    answers = completer.complete(requests)
    rows = zip(answers, task.test, strict=True)
    return np.array([reward(found[0].text.strip(), row) for found, row in rows], np.float64)


def one_seed(task: Task, model: str, seed: int, folder: Path, rounds: int) -> dict[str, Any]:
    """Sample, train both models of each round, and score them."""
    began = time.perf_counter()
    output = folder / f"seed-{seed}"
    words = ["synthesize", "rejection", "--model", model, "--prompts", str(folder / "pool.jsonl")]
    words += ["--reward", task.reward, "--max-new-tokens", str(task.max_tokens), *task.flags]
    words += ["--seed", str(seed), "--rounds", str(rounds), "--train-control"]
    fields = {**task.fields, **_QUIET, "seed": seed}
    fields["train.compile_cache"] = str(folder / "cache")
    ift([*words, "--output", str(output)], fields, folder / "log.txt")
    found: dict[str, Any] = {"seed": seed, "seconds": time.perf_counter() - began}
    for number in range(1, rounds + 1):
        summary = json.loads((output / f"round-{number}" / "summary.json").read_text())
        names = {"selected": "model", "control": "control_model"}
        of_models = {
            name: scores(str(output / f"round-{number}" / workdir), task)
            for name, workdir in names.items()
        }
        difference = of_models["selected"] - of_models["control"]
        interval = mean_interval({"test": difference})
        found[f"round {number}"] = {
            "mean reward of samples": summary["mean_reward"],
            "selected rows": summary["selected"],
            "selected": of_models["selected"].mean(),
            "control": of_models["control"].mean(),
            "difference": difference.mean(),
            "interval of the difference over prompts": list(interval),
            "difference by prompt": difference.tolist(),
        }
    found["seconds with scores"] = time.perf_counter() - began
    return found


def known(path: Path, find: Callable[[], Any]) -> Any:
    """Return the JSON value of a file, which is found and written if the file is missing."""
    if not path.exists():
        value = find()
        path.write_text(json.dumps(value) + "\n")
    return json.loads(path.read_text())


def over_prompts(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean difference, with the paired bootstrap's interval over the test's prompts.

    The score of a prompt is its mean over seeds, because seeds share the prompts.
    """
    by_prompt = np.mean([result["difference by prompt"] for result in results], axis=0)
    low, high = mean_interval({"test": by_prompt})
    return {"mean": float(by_prompt.mean()), "low": low, "high": high}


def over_seeds(differences: list[float]) -> dict[str, float]:
    """Return the mean of differences with its 95% interval by Student's t."""
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return {"mean": mean}
    half = float(student_t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / n**0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def run() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--model", default="", help="the starting model; of sums it is trained")
    parser.add_argument("--output", required=True, type=lambda path: Path(path).resolve())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    folder: Path = args.output
    task = TASKS[args.task](folder)
    write_rows(folder / "pool.jsonl", task.pool)
    model = os.path.abspath(args.model) if args.model else str(folder / "base")
    if not args.model:
        words = ["train", "--config", f"configs/jsonl.py:{folder / 'base.jsonl'}"]
        ift([*words, "--workdir", model], {**_SMALL_MODEL, **_QUIET}, folder / "log.txt")
    before = np.array(known(folder / "start.json", lambda: scores(model, task).tolist()))
    low, high = wilson_interval(before.mean(), len(before))
    print(
        f"starting model: {before.mean():.3f} [{low:.3f}, {high:.3f}] of {len(before)}", flush=True
    )
    results = []
    for seed in range(args.seeds):
        measure = functools.partial(one_seed, task, model, seed, folder, args.rounds)
        results.append(known(folder / f"seed-{seed}-rounds-{args.rounds}.json", measure))
        print(json.dumps(results[-1]), flush=True)
    summary = {}
    for number in range(1, args.rounds + 1):
        of_round = [result[f"round {number}"] for result in results]
        summary[f"round {number}"] = {
            "selected": over_seeds([one["selected"] for one in of_round]),
            "control": over_seeds([one["control"] for one in of_round]),
            "difference": over_seeds([one["difference"] for one in of_round]),
            "difference over prompts": over_prompts(of_round),
        }
    print(json.dumps(summary, indent=1))
    everything = {"start": float(before.mean()), "seeds": results, "over seeds": summary}
    (folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    run()
