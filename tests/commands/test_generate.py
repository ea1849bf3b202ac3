"""`ift generate`: all prompts are checked before the weights are read; any text can be shown."""

import io
import json
import signal
import sys

import pytest

from ift_jax.commands.main import main
from ift_jax.decoding import Generator
from ift_jax.evaluation import text_generator
from tests import small_models


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_models.write_workdir(tmp_path_factory.mktemp("run"))


@pytest.fixture
def no_weights(monkeypatch):
    """Fails a test in which weights are read."""

    def load_generator(*_):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(text_generator, "load_generator", load_generator)


def test_an_empty_prompt_is_answered_with_a_text(workdir, capsys, monkeypatch):
    small_models.compile_one_program(monkeypatch)
    assert main(["generate", "--workdir", workdir, "--prompt", "", "--max-new-tokens", "4"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert not line.startswith("{")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "x " * 4000}, "2: 8010 tokens of prompt and --max-new-tokens 4: expected at"),
        ({"prompt": 3}, "2: field 'prompt': expected a text, found a number"),
        ({"prompt": "x", "note": "\ud83d"}, "2: field 'note': holds half of a surrogate pair"),
    ],
)
def test_a_prompt_is_refused_before_the_weights_are_read(
    workdir, tmp_path, capsys, no_weights, line, message
):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"prompt": "fine"}, line])))
    output = tmp_path / "answers.jsonl"
    arguments = ["--prompts", str(path), "--output", str(output), "--max-new-tokens", "4"]
    assert main(["generate", "--workdir", workdir, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}:{message}") and error.count("\n") == 1
    assert not output.exists()


def test_any_text_can_be_printed_anywhere(monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    monkeypatch.setattr(sys, "stderr", None)  # As `2>&-` leaves it.
    assert main(["inspect", "--no-such-flag=é"]) == 2
    print("é😀")
    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == b"\\xe9\\U0001f600\n"


def test_a_signal_ends_it_after_the_batch_and_the_answers_are_kept(
    workdir, tmp_path, capsys, monkeypatch
):
    small_models.compile_one_program(monkeypatch)
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text("".join(json.dumps({"inputs": "x" * n}) + "\n" for n in range(1, 6)))
    arguments = ["generate", "--workdir", workdir, "--prompts", str(prompts)]
    arguments += ["--output", str(output), "--batch-size", "2", "--max-new-tokens", "2"]
    generate_blocks = Generator._generate_blocks
    n_batches = 0

    def interrupted(*args):
        nonlocal n_batches
        n_batches += 1
        if n_batches == 2:
            signal.raise_signal(signal.SIGTERM)
        return generate_blocks(*args)

    monkeypatch.setattr(Generator, "_generate_blocks", interrupted)
    assert main(arguments) == 128 + signal.SIGTERM
    assert n_batches == 2 and len(output.read_text().splitlines()) == 4
    assert "stopped by a signal: 4 of 5 answers; the same" in capsys.readouterr().err
    assert main(arguments) == 0
    assert n_batches == 3
    assert "5 answers" in capsys.readouterr().out
