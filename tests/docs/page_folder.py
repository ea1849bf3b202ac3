"""What the commands of the pages read, in one folder: a tiny model, rows, data sets, and runs."""

import dataclasses
import importlib.util
import io
import re
import shutil
from pathlib import Path

import pytest

from ift_jax.commands import main
from ift_jax.config.schema import FormatConfig
from ift_jax.models import build_model
from ift_jax.planning import compile_step
from ift_jax.training.train_program import TrainProgram
from tests.docs.page_commands import PageCommand, small_command
from tests.evaluation.benchmarks import small_sets
from tests.interop import gguf_files
from tests.small_models import ARCHITECTURES, CONFIG, random_params, write_workdir
from tests.sources.dataset_files import write

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# With the control tokens of `gguf_files.TOKENS`.
GGUF_TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|user|>{% endif %}"
)
_TRAIN = "ift train --model /path/to/folder --data my_data.jsonl --workdir runs/mine"
_TRAIN_QUICKSTART = "ift train --config configs/quickstart.py --workdir runs/quickstart"

# What extras of some commands bring.
_PACKAGES = {"gguf": "gguf", "ifeval": "langdetect", "plan": "libtpu"}


class PageFolder:
    """The working folder of all pages' commands. A command of several pages is executed once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._shown: dict[tuple[str, ...], str] = {}
        self._n_commands = 0

    def run(self, line: str, capsys: pytest.CaptureFixture[str]) -> str:
        """Execute a line of a page; return what it prints.

        The working folder must be this one.
        """
        self._n_commands += 1
        command = small_command(line, self._n_commands)
        key = tuple(small_command(line, 0).words)
        if key not in self._shown:
            self._supply(command, capsys)
            self._shown[key] = self._execute(command, capsys)
        return self._shown[key]

    def _execute(self, command: PageCommand, capsys: pytest.CaptureFixture[str]) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO("Say 3\n"))  # `ift chat` reads it.
            patch.setattr(compile_step, "compile_step", _compile_once)
            capsys.readouterr()
            status = main.main(command.words)
        shown = capsys.readouterr()
        needed = re.search(r"launch/setup.sh (gguf|ifeval|plan)", shown.err)
        if needed and importlib.util.find_spec(_PACKAGES[needed[1]]) is None:
            return shown.err  # CI has the extra.
        assert status == 0, f"{command.line}\n{' '.join(command.words)}\n{shown.err}"
        for path in command.written:
            assert (self._folder / path).exists(), command.line
        return shown.out

    def _supply(self, command: PageCommand, capsys: pytest.CaptureFixture[str]) -> None:
        """Make the runs that a command reads."""
        name, *words = command.words
        if name == "train":
            words = words[:0] if "--config" in words or "--data" in words else words
        for word in words:
            for path in word.split(","):
                if path == "untuned.json" or path.startswith("runs/"):
                    self._make(path, capsys)

    def _make(self, path: str, capsys: pytest.CaptureFixture[str]) -> None:
        target = self._folder / path
        if target.exists():
            return
        if path == "runs/t5":
            _write_t5(target)
        elif path == "runs/quickstart":
            self.run(_TRAIN_QUICKSTART, capsys)
        elif path == "runs/from_gguf":
            file = str(self._folder / "model.Q4_1.gguf")
            assert main.main(["import", file, "--workdir", str(target)]) == 0
        elif path == "runs/t5gemma":
            self.run(_TRAIN.replace("folder", "t5gemma").replace("mine", "t5gemma"), capsys)
        elif path == "runs/lora":
            self.run(f"{_TRAIN.removesuffix('mine')}lora --lora", capsys)
        elif path == "runs/mine":
            self.run(_TRAIN, capsys)
        elif path == "untuned.json":
            evaluate = small_command(f"ift eval --workdir runs/mine --output {path}", 0)
            self._execute(evaluate, capsys)
            shutil.copy(self._folder / evaluate.written[0], target)
        else:
            self._make("runs/mine", capsys)
            shutil.copytree(self._folder / "runs" / "mine", target)


_COMPILED: list[compile_step.Compiled] = []
_compile = compile_step.compile_step


def _compile_once(program: TrainProgram) -> compile_step.Compiled:
    """Compile the first plan; the others report on that program, which takes seconds."""
    if not _COMPILED:
        _COMPILED.append(_compile(program))
    return _COMPILED[0]


def make_page_folder(folder: Path) -> PageFolder:
    """Write what the commands read, but for runs, which are trained when they are needed."""
    exported = ["--workdir", write_workdir(folder / "base"), "--output", str(folder / "model")]
    assert main.main(["export", *exported]) == 0
    (folder / "model" / "chat_template.jinja").write_text(CHATML)
    _write_t5gemma(folder)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {k}"},
                {"role": "assistant", "content": f"{k}!"},
            ]
        }
        for k in range(40)
    ]
    write(folder / "rows.jsonl", rows)
    pairs = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": "No"} for n in range(40)]
    write(folder / "pairs.jsonl", pairs)
    write(folder / "prompts.jsonl", [{"prompt": "Say 3"}])
    fields = gguf_files.SIZES | gguf_files.TOKENIZER | {"tokenizer.chat_template": GGUF_TEMPLATE}
    gguf = gguf_files.gguf_bytes(fields, gguf_files.weights())
    (folder / "model.Q4_1.gguf").write_bytes(gguf)
    _write_data_sets(folder / "data")
    return PageFolder(folder)


def _write_data_sets(data: Path) -> None:
    """Write a few rows of the published sets that pages show."""
    small_sets.write_releases(data)
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]
    write(data / "conversations.json", [{"id": str(k), "conversations": turns} for k in range(20)])
    solved = [{"question": f"1+{k}?", "answer": f"It is 1+{k}.\n#### {1 + k}"} for k in range(60)]
    write(data / "gsm8k" / "train.jsonl", solved)
    dolly = {"instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"}
    write(data / "databricks-dolly-15k.jsonl", [dolly] * 20)
    seed = {"id": "seed_task_0", "name": "x", "is_classification": False, "instruction": "Count."}
    seeds = [seed | {"id": f"seed_task_{k}", "instances": [{"input": "a", "output": "1"}]}
             for k in range(20)]  # fmt: skip
    write(data / "self_instruct" / "seed_tasks.jsonl", seeds)
    generated = {"instruction": "Count.", "input": "a b", "output": "2"}
    write(data / "all_instances_82K.jsonl", [generated] * 20)
    trees = [
        {
            "message_tree_id": str(k),
            "prompt": {
                "text": "Who?",
                "role": "prompter",
                "lang": "en",
                "replies": [
                    {"text": "Me.", "role": "assistant", "lang": "en", "rank": 0, "replies": []}
                ],
            },
        }
        for k in range(20)
    ]
    write(data / "2023-04-12_oasst_ready.trees.jsonl.gz", trees)


def _write_t5gemma(folder: Path) -> None:
    base = ["--workdir", str(folder / "t5gemma_base"), "--output", str(folder / "t5gemma")]
    shape = dataclasses.replace(
        ARCHITECTURES["encoder_decoder"],
        vocab_size=480,
        block="gemma",
        n_encoder_layers=1,
        n_decoder_layers=1,
        decoder_start_id=2,
        max_length=128,
        encoder_embedding=True,
        tied_embedding=True,
    )
    config = dataclasses.replace(CONFIG, model=shape, format=FormatConfig(template="plain"))
    write_workdir(folder / "t5gemma_base", config, random_params(build_model(shape)))
    assert main.main(["export", *base]) == 0


def _write_t5(target: Path) -> None:
    shape = dataclasses.replace(ARCHITECTURES["encoder_decoder"], vocab_size=480)
    config = dataclasses.replace(CONFIG, model=shape, format=FormatConfig(template="plain"))
    write_workdir(target, config, random_params(build_model(shape)))
