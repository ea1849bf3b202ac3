"""The commands of the pages, made small: a tiny model, a few rows, and two steps.

A word of a command that names something a reader has (`/path/to/folder`, `chats.jsonl`) is replaced
by what `tests.docs.page_folder` holds. Flags that make the command small are added behind its own.
"""

import re
import shlex
from typing import NamedTuple

from tests.docs import pages
from tests.docs.pages import REPO

IFT = ("ift", ".venv/bin/ift")
# Where the bash blocks are executed word for word, with the files of the page.
WITH_OWN_FILES = (
    "docs/add_a_chat_template.md",
    "docs/add_a_metric.md",
    "docs/add_a_model_family.md",
    "docs/add_a_task.md",
    "docs/own_system.md",
)
# Lines that this test does not execute, and why. Each must be on a page.
NOT_EXECUTED = {
    r"launch/(quickstart|test)\.sh": "takes minutes; CI runs it from an empty environment",
    r"launch/setup\.sh": "installs packages; tests/launch/test_setup.py",
    r"launch/smollm2\.sh": "downloads a model",
    r"\.venv/bin/mkdocs serve": "serves until it is stopped",
    r"\.venv/bin/python -m tests\.robustness": "runs for hours; tests/robustness has short runs",
    r"gcloud|ssh-add|eval \"\$\(ssh-agent\)\"": "needs a Google Cloud account",
    r"\w+=|for ROLE in|done|export ": "sets what lines that need an account use",
    r"tensorboard": "serves until it is stopped",
    r"\.venv/bin/python -m pip (install|download)": "installs, or fetches what is installed",
    r"\.venv/bin/jupyter": "serves until it is stopped",
    r"(\S+ lm-eval|lm_eval) ": "needs data sets of the hub; tests/evaluation/test_lm_eval.py",
    r"\S+ push ": "uploads; tests/commands/test_push.py",
    r"\S+ serve ": "serves until it is stopped; tests/serving/test_server.py",
    r"\S+ synthesize (self-instruct|magpie) ": "a random model writes nothing that is kept; "
    "tests/synthesis/test_command.py",
    r"docker": "needs Docker; tests/launch/test_dockerfile.py",
    r"launch/(tpu_vm|xpk|slurm)\.py": "needs a cluster; tests/launch has stand-ins",
    r"\S+ train .*--coordinator": "needs four hosts; tests/training/test_processes.py",
    r"\S+ train .*lora\.quantize": "a run like --lora; tests/training/test_lora.py",
    r"\S+ prepare .*--runner FlinkRunner": "needs a Flink cluster",
    r"\S+ prepare .*--runner DirectRunner": "takes half a minute; tests/preparation/test_beam.py",
    r"\S+ prepare .*tulu3": "needs a published data set of 939,000 rows",
    r"\S+ plan .*--(search|decode)": "compiles for minutes; tests/planning/test_plan.py",
    r"\S+ compare --few-shot": "tests/evaluation/test_untuned_against_tuned.py",
    r"\S+ synthesize rejection .*--rounds": "trains six models; tests/synthesis/test_rejection.py",
    r"\S+ -m benchmarks\.": "takes minutes, or needs a model",
    r"\S+ sweep --config benchmarks/": "needs SmolLM2 and published tasks",
    r"\S+ eval --config configs/smollm2_135m": "needs SmolLM2 and Natural Instructions",
    r"\S+ (prepare|train|chat|import|export) .*(gs://|\$BUCKET)": "needs a bucket; tests/io",
}

_TINY_SHAPE = (
    "model.d_model=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.n_kv_heads=1",
    "model.head_dim=8",
    "model.d_ff=24",
)
_SHORT_ANSWERS = ("evaluation.examples=2", "evaluation.max_new_tokens=2")
_FINETUNING_PAIRS = ("data.inputs_length=64", "data.targets_length=64", "train.batch_size=4")
_FINETUNING = ("data.max_length=64", "train.batch_size=8")
# A report takes longer to draw than a run of two steps; tests/training/test_run_report.py.
_FAST_RUN = ("train.report=False", "train.peak_tflops=1.0", "train.preview_prompts=1")
_FINETUNING_RUN = ("train.epochs=2", *_FAST_RUN, *_SHORT_ANSWERS)
_QUICKSTART = (
    "data.mixture=quickstart_sentiment",
    "data.heldout_mixture=quickstart_read_who",
    "tokenizer.train_vocab_size=320",
    *_TINY_SHAPE,
    *_SHORT_ANSWERS,
)
_QUICKSTART_RUN = ("train.steps=2", "train.eval_metrics_every=0", *_FAST_RUN)
# A plan has a small model, for a corner of the topology.
_PLAN = (
    "model.attention=xla",
    "model.d_model=256",
    "model.n_layers=1",
    "model.n_heads=4",
    "model.n_kv_heads=2",
    "model.head_dim=64",
    "model.d_ff=512",
    "model.vocab_size=512",
    "data.max_length=128",
    "train.batch_size=16",
)
_WRITES = ("--output", "--answers", "--json", "--html")


class PageCommand(NamedTuple):
    """An `ift` command as it is executed.

    Attributes:
        line: The line of the page.
        words: The arguments of `ift`, such as ["train", "--model", ...].
        written: The paths that it must have written.
    """

    line: str
    words: list[str]
    written: list[str]


def lines_of(page: str) -> list[str]:
    """The lines of a page that a reader would type, without those that `test_pages.py` executes."""
    text = (REPO / page).read_text(encoding="utf-8")
    languages = ("sh",) if page in WITH_OWN_FILES else ("bash", "sh")
    shown = [block.text for block in pages.blocks(text) if block.language in languages]
    return [line for script in shown for line in pages.joined_lines(script) if line]


def reason_against(line: str) -> str | None:
    """The pattern of `NOT_EXECUTED` that a line begins with; None if it is executed."""
    return next((pattern for pattern in NOT_EXECUTED if re.match(pattern, line)), None)


def small_command(line: str, number: int) -> PageCommand:
    """The command of a line, made small.

    Args:
        line: A line of a page that begins with `ift`.
        number: The number of the command, for the names of what it writes.
    """
    program, name, *rest = shlex.split(line, comments=True)
    assert program in IFT, line
    words = [_here(word) for word in rest]
    flags = _small(name, words)
    written: list[str] = []
    for place, word in enumerate(words[:-1]):
        is_own = name in ("import", "merge") or "--dry-run" in flags
        if word in _WRITES or (word == "--workdir" and is_own):
            words[place + 1] = f"written/{number}/{words[place + 1]}"
            if "--dry-run" not in flags:
                written.append(words[place + 1])
    return PageCommand(line, [name, *words, *flags], written)


def _here(word: str) -> str:
    """A word of a command, with the files of `page_folder` instead of the reader's."""
    if word == "data":  # The value of --benchmark-data.
        return "data"
    for pattern, ours in (
        (
            r"/path/to/(hugging-face-folder|folder)$|runs/smollm2_135m_instruct$|^tiny_qwen3_5$",
            "model",
        ),
        (r"/path/to/t5gemma$", "t5gemma"),
        (r"^v5[ep]:\S+$", "v5e:2x2"),
        (r"^300,400,500$", "3,4"),  # The steps of the run's checkpoints.
        (r"(chats|my_data|mine)\.jsonl$", "rows.jsonl"),
        (r"/path/to/conversations\.json$", "data/conversations.json"),
        (r"/path/to/data$", "data"),
        (r"^configs/", f"{REPO}/configs/"),
    ):
        word = re.sub(pattern, ours, word)
    return word


def _small(name: str, words: list[str]) -> list[str]:
    """The flags that make a command small."""
    config = words[words.index("--config") + 1] if "--config" in words else ""
    fields: tuple[str, ...] = ()
    flags: list[str] = []
    if "--model" in words and "--data" in words:
        lengths = _FINETUNING_PAIRS if "t5gemma" in words else _FINETUNING
        fields = lengths + (_FINETUNING_RUN if name == "train" else ())
    elif "quickstart.py" in config or (name == "train" and "runs/quickstart" in words):
        fields = _QUICKSTART + (_QUICKSTART_RUN if name == "train" else ())
    elif name == "train" and config and "--dry-run" not in words:
        flags = ["--dry-run"]  # A recipe of the literature: all but the data and the weights.
    elif name == "plan":
        fields = _PLAN
    elif words[:1] == ["rejection"]:
        # A random model is never right, and never done after two tokens.
        flags = ["--max-new-tokens", "2", "--samples", "2", "--threshold", "0", "--keep-unfinished"]
        fields = _FINETUNING + _FINETUNING_RUN if "--train" in words else ()
    elif name == "eval" and "--benchmarks" in words:
        flags = ["--limit", "1"] if "--limit" not in words else []
        flags += ["--max-new-tokens", "2"]
    elif name == "eval":
        fields = _SHORT_ANSWERS
    if name == "sweep":
        flags = ["--dry-run"]  # Each run is a process; tests/sweep.
    if name in ("generate", "chat"):
        flags = ["--max-new-tokens", "2"]
    return [*flags, *(f"--config.{field}" for field in fields)]
