"""`ift eval` uses the model's own tokenizer, and reports every metric."""

import json
import os
import signal

import pytest

from ift_jax.commands.main import main
from ift_jax.decoding import Generator
from tests import small_models
from tests.text.small_tokenizers import t5_like_tokenizer

pytestmark = pytest.mark.usefixtures("one_device", "own_registry")


@pytest.fixture
def arguments(tmp_path):
    """The command line of an evaluation of a small model on a config that names no tokenizer."""
    data = tmp_path / "data.jsonl"
    lines = [{"inputs": f"count {i} apples", "targets": f"{i} apples"} for i in range(60)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    workdir = small_models.write_workdir(tmp_path / "run")
    arguments = ["eval", "--config", f"configs/jsonl.py:{data}", "--workdir", workdir]
    arguments += [f"--config.data.store_dir={tmp_path / 'stores'}", "--config.data.processes=1"]
    return [*arguments, "--config.evaluation.examples=2", "--config.evaluation.max_new_tokens=2"]


def test_no_tokenizer_is_trained(arguments, tmp_path, capsys, monkeypatch):
    small_models.compile_one_program(monkeypatch)
    output = tmp_path / "scores.json"
    assert main([*arguments, "--output", str(output)]) == 0, capsys.readouterr().err
    assert os.listdir(tmp_path / "stores") and not (tmp_path / "stores" / "tokenizers").exists()
    printed = capsys.readouterr().out
    assert "exact match" in printed and "ROUGE-L" in printed and "training a" not in printed
    scores = json.loads(output.read_text())
    assert scores["tasks"]["jsonl_data"]["examples"] == 2 and scores["failures"] == []


def test_a_signal_ends_it_after_the_batch_and_the_answers_are_kept(
    arguments, tmp_path, capsys, monkeypatch
):
    small_models.compile_one_program(monkeypatch)
    generate_blocks = Generator._generate_blocks

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return generate_blocks(*args)

    monkeypatch.setattr(Generator, "_generate_blocks", interrupted)
    output = tmp_path / "scores.json"
    arguments += ["--output", str(output), "--config.evaluation.batch_size=1"]
    assert main(arguments) == 128 + signal.SIGINT
    kept = json.loads(output.read_text())
    assert not kept["complete"] and "tasks" not in kept
    assert [answer["task"] for answer in kept["answers"]] == ["jsonl_data"]
    assert f"1 answer, not scored; they are in {output}" in capsys.readouterr().err

    # The same command answers the other example alone, and then nothing is left beside the output.
    decoded = []

    def counted(generator, batch, *args):
        decoded.extend(batch.requests)
        return generate_blocks(generator, batch, *args)

    monkeypatch.setattr(Generator, "_generate_blocks", counted)
    lines = tmp_path / "answers.jsonl"
    assert main(arguments) == 0 and len(decoded) == 1
    result = json.loads(output.read_text())
    assert result["complete"] and result["tasks"]["jsonl_data"]["examples"] == 2
    assert not list(tmp_path.glob("*.unordered.jsonl"))
    # Another split, without an interruption: all answers as JSON lines, each with its scores.
    assert main([*arguments[:-3], "--split", "train", "--answers", str(lines)]) == 0
    answers = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(decoded) == 1 + 2 and len(answers) == 2
    assert all(set(a["metrics"]) == {"exact_match", "rouge_l", "stopped"} for a in answers)
    assert not {a["prompt"] for a in answers} & {a["prompt"] for a in result["answers"]}
    loss = result["tasks"]["jsonl_data"]["loss"]
    assert loss == result["overall"]["loss"] > 0


def test_another_tokenizer_is_refused_before_anything_is_prepared(arguments, tmp_path, capsys):
    other = tmp_path / "other.model"
    other.write_bytes(t5_like_tokenizer().files["tokenizer.model"])
    assert main([*arguments, f"--config.tokenizer.path={other}"]) == 2
    error = capsys.readouterr().err
    assert "config.tokenizer: expected that of the model in" in error and str(other) in error
    assert not (tmp_path / "stores").exists()
