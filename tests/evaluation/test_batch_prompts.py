"""Answers in a file: interrupted anywhere and continued, they are the same bytes."""

import gzip
import json
import os

import pytest

from ift_jax.decoding import Generator, Options, Sampling
from ift_jax.errors import UserError
from ift_jax.evaluation import batch_prompts
from ift_jax.evaluation.finished_batches import FinishedBatches
from ift_jax.io.files import append_json_lines
from tests import small_models

OPTIONS = Options(8, Sampling(1.2, min_p=0.01, repetition_penalty=1.1), seed=2)
TEXTS = ["Anna", "counts 23 apples.", "é 😀", "The user has lost systems", "x y", "So it is", "a"]
PROMPTS = [
    batch_prompts.checked_prompt(f"p.jsonl:{i}", {"id": i, "inputs": text})
    for i, text in enumerate(TEXTS)
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
    ids = batch_prompts.prompt_ids(opened[0], prompts, options.max_new_tokens)
    requests = batch_prompts.requests_of(opened[0], prompts, ids, options)
    windows = batch_prompts.answer_windows(*opened, prompts, requests, batch_size=2, done=done)
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
    assert all(set(line) == {"id", "inputs", "answer", "stopped", "new_tokens"} for line in lines)
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


def test_a_stop_keeps_the_batches_that_are_done(opened, tmp_path, monkeypatch):
    def batches(path, stopped=lambda: False):
        """Answers like `ift generate`; returns the numbers of the prompts that were decoded."""
        settings = batch_prompts.settings(*opened, OPTIONS, 2)
        done = batch_prompts.continue_file(path, settings, PROMPTS)
        ids = batch_prompts.prompt_ids(opened[0], PROMPTS, OPTIONS.max_new_tokens)
        requests = batch_prompts.requests_of(opened[0], PROMPTS, ids, OPTIONS)
        decoded.clear()
        for answers in batch_prompts.answer_windows(
            *opened,
            PROMPTS,
            requests,
            batch_size=2,
            done=done,
            finished=FinishedBatches(path, settings),
            stopped=stopped,
        ):
            append_json_lines(path, answers)
        return list(decoded)

    decoded = []
    generate_blocks = Generator._generate_blocks

    def counted(generator, batch, *args):
        decoded.append(sorted(request.index for request in batch.requests))
        return generate_blocks(generator, batch, *args)

    monkeypatch.setattr(Generator, "_generate_blocks", counted)
    whole, path = str(tmp_path / "whole.jsonl"), str(tmp_path / "answers.jsonl")
    of_all = batches(whole)
    assert len(of_all) == 4 and not os.path.exists(f"{whole}.unordered.jsonl")
    assert sorted(sum(of_all, [])) == list(range(7))
    # Stopped after each batch, it decodes each batch once.
    of_parts = [batches(path, stopped=lambda: bool(decoded)) for _ in of_all]
    assert sum(of_parts, []) == of_all
    assert batches(path) == []
    with open(path, "rb") as file, open(whole, "rb") as expected:
        assert file.read() == expected.read()
    assert not os.path.exists(f"{path}.unordered.jsonl")


def test_batches_of_other_settings_or_half_written_ones_are_not_used(tmp_path):
    path = str(tmp_path / "answers.jsonl")
    finished = FinishedBatches(path, {"seed": 1})
    finished.add(4, [[1, 2], [3]], {0: {"answer": "a"}, 1: {"answer": "b"}})
    with open(f"{path}.unordered.jsonl", "a") as file:
        file.write('["half a li')
    both = {0: {"answer": "a"}, 1: {"answer": "b"}}
    assert FinishedBatches(path, {"seed": 1}).of_window(4, [[1, 2], [3]]) == both
    assert FinishedBatches(path, {"seed": 1}).of_window(4, [[1, 2], [4]]) == {0: both[0]}
    assert FinishedBatches(path, {"seed": 2}).of_window(4, [[1, 2], [3]]) == {}


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
    long = [*PROMPTS, batch_prompts.checked_prompt("p.jsonl:8", {"inputs": "x" * 200})]
    with pytest.raises(UserError, match=r"p.jsonl:8: \d+ tokens of prompt and .* 8: .* 128"):
        batch_prompts.prompt_ids(opened[0], long, 8)
    # A model without a maximum was trained on rows of 64 tokens.
    unbounded, _ = small_models.open_random_model(max_length=0)
    message = r"p.jsonl:8: \d+ tokens of prompt: expected at most 63, the most it was trained on; "
    with pytest.raises(UserError, match=message + "--max-prompt-tokens"):
        batch_prompts.prompt_ids(unbounded, long, 8)
    lengths = [len(ids) for ids in batch_prompts.prompt_ids(unbounded, long, 8, 1000)]
    assert lengths[-1] > 200
    with pytest.raises(UserError, match="expected at most 9, --max-prompt-tokens"):
        batch_prompts.prompt_ids(opened[0], PROMPTS, 8, 9)


def test_every_layout_that_training_reads_is_a_prompt(tmp_path):
    rows = [
        {"inputs": "a"},
        {"inputs": "a", "targets": "b", "references": ["b"]},
        {"prompt": "a"},
        {"prompt": "a", "completion": "b"},
        {"instruction": "a"},
        {"instruction": "a", "input": "", "output": "b"},
        {"instruction": "a", "input": "c", "output": "b"},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": json.dumps([{"role": "user", "content": "a"}]), "id": 3},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    text = "\n\n".join(map(json.dumps, rows))
    plain, packed = tmp_path / "p.jsonl", tmp_path / "p.jsonl.gz"
    plain.write_bytes(b"\xef\xbb\xbf" + text.encode())  # With a byte order mark.
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (plain, packed):
        prompts = batch_prompts.read_prompts(str(path))
        assert [prompt.fields for prompt in prompts] == rows
        texts = [[turn.content for turn in prompt.record.messages] for prompt in prompts]
        assert texts == [["a"]] * 6 + [["a\n\nc"]] + [["a"]] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "holds no prompt"),
        (b"[1]", "the line is a list; expected a JSON object"),
        (b'{"input": "a"}', "cannot tell what the row is .* 'prompt', .*; did you mean 'inputs'?"),
        (b'{"prompt": ["a"]}', "expected an object with .role. and .content., found a text"),
        (b'{"inputs": "\\ud83d"}', "field 'inputs': expected valid UTF-8"),
        (b'{"inputs": "a", "id": ["\\ud83d"]}', "field 'id': holds half of a surrogate pair"),
        (b'{"inputs": "a", "\\ud83d": 1}', "holds half of a surrogate pair"),
        (b'{"inputs": "a", "x": NaN}', "NaN"),
        (b'{"inputs": "a", "answer": "gold"}', "field 'answer': is written beside the answer"),
        (b'{"inputs": "\xff"}', "UTF-8"),
    ],
)
def test_a_line_that_is_no_prompt_is_found_when_it_is_read(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"inputs": "fine"}\n' + line if line else b"\n")
    with pytest.raises(UserError, match=message) as raised:
        batch_prompts.read_prompts(str(path))
    assert str(raised.value).startswith(f"{path}:2: " if line else f"{path}: ")


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read"):
        batch_prompts.read_prompts(str(tmp_path / name))


def test_control_tokens_as_stop_strings_are_stop_ids():
    text_generator, _ = small_models.open_random_model("<|user|>", "zebra")
    assert text_generator.tokenizer.special_tokens["<|user|>"] in text_generator.stops.ids
    assert text_generator.stops.strings == ("zebra",)
