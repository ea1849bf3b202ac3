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

pytestmark = pytest.mark.usefixtures("one_device")


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
    # The prompt that is left over comes first.
    assert n_batches == 2 and len(output.read_text().splitlines()) == 3
    assert "stopped by a signal: 3 of 5 answers; the same" in capsys.readouterr().err
    assert main(arguments) == 0
    assert n_batches == 3
    assert "5 answers" in capsys.readouterr().out


def generated(capsys, *arguments):
    """The objects that the command prints."""
    assert main(["generate", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_answers_beams_and_log_probabilities_are_written(workdir, tmp_path, capsys, monkeypatch):
    small_models.compile_one_program(monkeypatch)
    prompts = tmp_path / "prompts.jsonl"
    # A line's own seed makes its answers those of a prompt alone with this seed.
    prompts.write_text('{"inputs": "apples"}\n{"inputs": "apples", "seed": 5}\n')
    model = ["--workdir", workdir, "--max-new-tokens", "4"]
    sampled = [*model, "--temperature", "1.2", "--n", "2", "--logprobs", "2"]
    first, second = generated(capsys, *sampled, "--prompts", str(prompts))
    [alone] = generated(capsys, *sampled, "--prompt", "apples", "--seed", "5")
    texts = [[answer["answer"] for answer in line["answers"]] for line in (first, second, alone)]
    assert texts[1] == texts[2] != texts[0] and len(set(texts[1])) == 2
    assert [set(answer) for answer in alone["answers"]] == [
        {"answer", "stopped", "new_tokens", "logprobs"}
    ] * 2
    place = alone["answers"][0]["logprobs"][0]
    assert set(place) == {"id", "token", "logprob", "top_logprobs"} and place["logprob"] < 0
    likeliest = [token["logprob"] for token in place["top_logprobs"]]
    assert len(likeliest) == 2 and likeliest == sorted(likeliest, reverse=True)

    searched = [*model, "--num-beams", "3", "--n", "2", "--length-penalty", "0.6"]
    [line] = generated(capsys, *searched, "--beam-rules", "t5x", "--prompt", "apples")
    scores = [answer["score"] for answer in line["answers"]]
    assert scores == sorted(scores, reverse=True)

    [line] = generated(capsys, *model, "--prompt", "apples", "--prompt-logprobs", "0")
    echoed = line["prompt_logprobs"]
    assert echoed[0] is None and all(place["logprob"] < 0 for place in echoed[1:])
    assert "apples" in "".join(place["token"] for place in echoed[1:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n", "2"], "n: 2 greedy answers would be the same; expected a temperature above 0"),
        (["--num-beams", "2", "--temperature", "1"], "num_beams: beam search neither samples nor"),
        (["--num-beams", "2", "--n", "3"], "n: 2 beams give as many answers"),
        (["--num-beams", "2", "--logprobs", "1"], "logprobs: beam search keeps no likeliest"),
        (["--length-penalty", "0.6"], "--length-penalty, --beam-rules, --early-stopping: expected"),
        (["--logprobs", "481"], "--prompt: logprobs: expected at most the vocabulary's 480"),
    ],
)
def test_flags_that_exclude_each_other_are_one_line(workdir, capsys, no_weights, flags, message):
    short = ["--max-new-tokens", "4"]
    assert main(["generate", "--workdir", workdir, "--prompt", "x", *short, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_seed_that_is_no_number_is_named(workdir, tmp_path, capsys, no_weights):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"inputs": "x"}\n{"inputs": "x", "seed": "5"}\n')
    arguments = ["generate", "--workdir", workdir, "--prompts", str(prompts)]
    assert main([*arguments, "--temperature", "1", "--max-new-tokens", "4"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {prompts}:2: field 'seed': expected a whole number")
