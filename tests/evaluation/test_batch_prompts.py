"""Answers in a file: interrupted anywhere and continued, they are the same bytes."""

import json

import pytest

from ift_jax.decoding import Options, Sampling
from ift_jax.errors import UserError
from ift_jax.evaluation import batch_prompts
from ift_jax.io.files import append_json_lines
from tests import small_models

OPTIONS = Options(8, Sampling(1.2, min_p=0.01, repetition_penalty=1.1), seed=2)
TEXTS = ["Anna", "counts 23 apples.", "é 😀", "The user has lost systems", "x y", "So it is", "a"]
PROMPTS = [
    batch_prompts.Prompt(f"p.jsonl:{i}", {"id": i, "inputs": text}) for i, text in enumerate(TEXTS)
]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(batch_prompts, "WINDOW", 2)  # Four prompts, with the batch size of 2.
    small_models.compile_one_program(monkeypatch)


@pytest.fixture(scope="module")
def opened():
    return small_models.open_random_model("zebra")


def answer(opened, path, options=OPTIONS, prompts=PROMPTS, stop_after=None):
    """Does what `ift generate --output` does; returns how many answers the file held."""
    settings = batch_prompts.settings(*opened, options, 2)
    done = batch_prompts.continue_file(path, settings, prompts)
    windows = batch_prompts.answer_windows(*opened, prompts, options, batch_size=2, done=done)
    for n, answers in enumerate(windows):
        if n == stop_after:
            break
        append_json_lines(path, answers)
    return done


def test_a_continued_file_equals_one_without_interruption(opened, tmp_path):
    path = str(tmp_path / "answers.jsonl")
    assert answer(opened, path) == 0
    with open(path, "rb") as file:
        whole = file.read()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["id"] for line in lines] == list(range(7))
    assert all(set(line) == {"id", "inputs", *batch_prompts._ANSWER_FIELDS} for line in lines)
    assert len({line["answer"] for line in lines}) == 7

    assert answer(opened, path) == 7  # Nothing is left to do.
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    # Cuts in the first line, at a line's end, in a window, in a character, and before the end.
    cuts = [1, ends[0], ends[2] - 1, whole.index("😀".encode()) + 2, ends[4], len(whole) - 1]
    for cut in cuts:
        with open(path, "wb") as file:
            file.write(whole[:cut])
        assert answer(opened, path) == sum(end <= cut for end in ends)
        with open(path, "rb") as file:
            assert file.read() == whole

    other = str(tmp_path / "stopped.jsonl")
    answer(opened, other, stop_after=1)
    assert answer(opened, other) == 4
    with open(other, "rb") as file:
        assert file.read() == whole


def test_a_file_of_something_else_is_refused(opened, tmp_path):
    path = str(tmp_path / "answers.jsonl")
    answer(opened, path, stop_after=1)
    with pytest.raises(UserError, match="begun with seed 2, now it is 3; remove it or name"):
        answer(opened, path, Options(8, OPTIONS.sampling, seed=3))
    with pytest.raises(UserError, match=r"begun with stop strings \['zebra'\], now it is \[\]"):
        answer(small_models.open_random_model(), path)
    with pytest.raises(UserError, match="begun with model.max_length 128, now it is 256"):
        answer(small_models.open_random_model("zebra", max_length=256), path)
    with pytest.raises(UserError, match=r"answers.jsonl:2: is no answer to these prompts"):
        answer(opened, path, prompts=[PROMPTS[0], PROMPTS[2]])
    with pytest.raises(UserError, match=r"answers.jsonl:4: is no answer to these prompts"):
        answer(opened, path, prompts=PROMPTS[:3])
    with open(path, "a") as file:
        file.write("no JSON\n")
    with pytest.raises(
        UserError, match=r"answers.jsonl:5: column 1: .*expected an answer; remove it or name"
    ):
        answer(opened, path)
    (tmp_path / "answers.jsonl.settings.json").unlink()
    with pytest.raises(UserError, match="there is no .*settings.json to continue it"):
        answer(opened, path)


def test_other_weights_have_another_fingerprint(opened):
    text_generator, generator = opened
    params = small_models.random_model()[1]
    assert text_generator.generator(params).fingerprint() == generator.fingerprint()
    changed = dict(params, embedding=params["embedding"] * 1.01)
    assert text_generator.generator(changed).fingerprint() != generator.fingerprint()


def test_a_prompt_that_does_not_fit_is_named(opened):
    long = [*PROMPTS, batch_prompts.Prompt("p.jsonl:8", {"inputs": "x" * 200})]
    with pytest.raises(UserError, match=r"p.jsonl:8: \d+ tokens of prompt and .* 8: .* 128"):
        batch_prompts.prompt_ids(opened[0], long, 8)


def test_control_tokens_as_stop_strings_are_stop_ids():
    text_generator, _ = small_models.open_random_model("<|user|>", "zebra")
    assert text_generator.tokenizer.special_tokens["<|user|>"] in text_generator.stops.ids
    assert text_generator.stops.strings == ("zebra",)
