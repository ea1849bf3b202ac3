"""`ift eval --benchmarks` with a small model: prompts, likelihoods, resuming, results."""

import dataclasses
import importlib
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from ift_jax.commands.main import main
from ift_jax.decoding import Generator
from ift_jax.evaluation.benchmarks.base import Item, Solved
from ift_jax.evaluation.benchmarks.prompt_encoder import PromptEncoder, PromptStyle
from ift_jax.evaluation.benchmarks.registry import BENCHMARKS
from ift_jax.evaluation.continuations import continuation_of_texts, plain_prompt
from ift_jax.evaluation.recorded_answers import read_answers
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.models import build_model
from tests import small_models
from tests.evaluation.benchmarks import small_sets
from tests.text.small_tokenizers import sentencepiece_tokenizer

pytestmark = pytest.mark.usefixtures("one_device")

_MODEL = dataclasses.replace(small_models.CONFIG.model, max_length=500)
_CONFIG = dataclasses.replace(small_models.CONFIG, model=_MODEL)
_LENGTH = 512  # All rows are padded to it, so that one program serves all prompts.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    small_sets.write_releases(root)
    return root


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_models.write_workdir(tmp_path_factory.mktemp("model") / "tiny", _CONFIG)


@pytest.fixture(autouse=True)
def one_length(monkeypatch):
    for name in ("ift_jax.decoding.request_batch", "ift_jax.evaluation.rank_choices"):
        monkeypatch.setattr(importlib.import_module(name), "bucket", lambda length: _LENGTH)


def _run(workdir, data, names, output, *flags):
    arguments = ["eval", "--benchmarks", names, "--benchmark-data", str(data), "--model", workdir]
    arguments += ["--output", str(output), "--max-new-tokens", "6", "--batch-size", "1", *flags]
    return main(arguments)


def _lines(output, name):
    file = output / "answers" / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def _text_generator():
    model = build_model(_MODEL)
    return TextGenerator(_CONFIG, sentencepiece_tokenizer(), model)


# --- Prompts -----------------------------------------------------------------------------------

_ITEM = Item(
    "0",
    "Q: c?\nA:",
    instruction="Count.\n\n",
    solved=(Solved("Q: a?\nA:", "1"), Solved("Q: b?\nA:", "2")),
    follow_ups=("again",),
)


def _prompt(style, item=_ITEM, answers=(), limit=500):
    text_generator = _text_generator()
    config = dataclasses.replace(_CONFIG, model=dataclasses.replace(_MODEL, max_length=limit))
    text_generator.config = config
    encoder = PromptEncoder(text_generator, BENCHMARKS["gsm8k"], style, 4)
    fitted = encoder.fitted(item, answers)
    if fitted is None:
        return None
    decoded = text_generator.tokenizer.decode(fitted.ranked.prompt, keep_special=True)
    return decoded, fitted.n_left_out


def test_plain_prompts_and_turns():
    text = "Count.\n\nQ: a?\nA: 1\n\nQ: b?\nA: 2\n\nQ: c?\nA:"
    assert _prompt(PromptStyle(chat=False)) == (text, 0)
    chat, _ = _prompt(PromptStyle())
    assert chat == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    turns, _ = _prompt(PromptStyle(as_turns=True), answers=["3"])
    said = ["Count.\n\nQ: a?\nA:", "1", "Q: b?\nA:", "2", "Q: c?\nA:", "3", "again"]
    shown = [
        f"<|im_start|>{('user', 'assistant')[i % 2]}\n{text}<|im_end|>\n"
        for i, text in enumerate(said)
    ]
    assert turns == "".join(shown) + "<|im_start|>assistant\n"


def test_solved_examples_that_do_not_fit_are_left_out():
    encoded = len(sentencepiece_tokenizer().encode(_prompt(PromptStyle(chat=False))[0]))
    text, n_left_out = _prompt(PromptStyle(chat=False), limit=encoded + 3)
    assert n_left_out == 1 and text == "Count.\n\nQ: b?\nA: 2\n\nQ: c?\nA:"
    assert _prompt(PromptStyle(chat=False), limit=8) is None


def test_ids_of_a_continuation_are_lm_evaluation_harness_s():
    tokenizer = sentencepiece_tokenizer()
    row = continuation_of_texts(tokenizer, "The user sorts ", "apples", bos=False)
    assert list(row.prompt) == tokenizer.encode("The user sorts")
    assert [*row.prompt, *row.answer] == tokenizer.encode("The user sorts apples")
    whole = continuation_of_texts(tokenizer, "", "apples", bos=False)
    assert len(whole.prompt) == 1 and list(whole.answer) == tokenizer.encode("apples")
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.api.model import TemplateLM

    class Theirs(TemplateLM):
        eot_token_id = None
        _loglikelihood_tokens = generate_until = loglikelihood_rolling = None
        backend = "causal"

        def tok_encode(self, string, **kwargs):
            return tokenizer.encode(string)

    Theirs.__abstractmethods__ = frozenset()
    for context, continuation in [
        ("Anna has", " 1 apple"),
        ("so\n ", "sorts"),
        ("Anna", "123"),
    ]:
        ours = continuation_of_texts(tokenizer, context, continuation, bos=False)
        theirs = Theirs()._encode_pair(context, continuation)
        assert (list(ours.prompt), list(ours.answer)) == theirs
    first_id = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    assert plain_prompt(tokenizer, "a", bos=True) == [first_id, *tokenizer.encode("a")]


# --- Likelihoods against full logits ------------------------------------------------------------


def _hand_scores(rows):
    """The log-likelihood of each row's continuation after its text, by the logits of all tokens."""
    tokenizer, params = sentencepiece_tokenizer(), small_models.random_model()[1]
    model = build_model(_MODEL)
    ids = [tokenizer.encode(text + continuation) for text, continuation in rows]
    tokens = np.zeros((len(ids), 256), np.int32)
    for row, of_row in zip(tokens, ids, strict=True):
        row[: len(of_row)] = of_row
    n = np.array([[len(of_row)] for of_row in ids])
    positions = np.broadcast_to(np.arange(256, dtype=np.int32), tokens.shape)
    segments = (positions < n).astype(np.int32)
    batch = {"tokens": tokens, "segment_ids": segments, "positions": positions}

    @jax.jit
    def log_probs(params):
        return jax.nn.log_softmax(model.logits(params, model.hidden(params, batch)))

    found = np.asarray(log_probs(params))
    starts = [len(tokenizer.encode(text)) for text, _ in rows]
    return [
        float(sum(of_row[place - 1, all_ids[place]] for place in range(start, len(all_ids))))
        for of_row, all_ids, start in zip(found, ids, starts, strict=True)
    ]


def test_ranked_benchmarks_against_a_hand_computation(workdir, data, capsys):
    folder = Path(workdir) / "benchmarks"  # As without --output.
    page = Path(workdir) / "report.html"
    page.write_text("old")
    names = "mmlu,arc_challenge,hellaswag"
    flags = ["--prompt-style", "plain", "--few-shot", "1"]
    assert _run(workdir, data, names, folder, *flags) == 0, capsys.readouterr().err
    results = json.loads((folder / "results.json").read_text())["benchmarks"]
    [mmlu, *_] = _lines(folder, "mmlu")
    lines = "A. one\nB. two, or so\nC. three\nD. four\nAnswer:"
    head = "The following are multiple choice questions (with answers) about high school math.\n\n"
    shown = f"{head}What is 0?\n{lines} A\n\nWhat is 0?\n{lines}"
    question = "Question: Hot?\nAnswer: sun\n\nQuestion: Cold?\nAnswer:"
    choices = ["a b", "ice", "c"]
    rows = [(shown, f" {letter}") for letter in "ABCD"]
    rows += [(question, f" {choice}") for choice in choices]
    by_hand = _hand_scores(rows)
    np.testing.assert_allclose(mmlu["log_likelihoods"], by_hand[:4], atol=2e-4)
    chosen = ["ABCD"[int(np.argmax(of["log_likelihoods"]))] for of in _lines(folder, "mmlu")]
    right = np.mean([a == b for a, b in zip(chosen, "ABCDAB", strict=True)])
    assert results["mmlu"]["metrics"]["acc"]["value"] == right

    arc = _lines(folder, "arc_challenge")[1]
    sums = by_hand[4:]
    np.testing.assert_allclose(arc["log_likelihoods"], sums, atol=2e-4)
    means = np.array(sums) / [len(choice) for choice in choices]
    expected = {"acc": np.argmax(sums) == 1, "acc_norm": np.argmax(means) == 1}
    assert {name: arc["metrics"][name] for name in expected} == expected
    assert set(results["hellaswag"]["metrics"]) == {"acc", "acc_norm", "acc_bytes"}
    assert results["mmlu"]["examples"] == 6 and results["mmlu"]["shots"] == 1
    printed = capsys.readouterr().out
    assert "acc_norm" in printed and " to " in printed and "high_school_math" in printed
    # The page of the run is written again.
    assert printed.splitlines()[-1] == f"report: {page}"
    assert "high_school_math" in page.read_text()


def test_a_choice_in_a_chat_has_the_ids_of_training_without_the_stop_token():
    text_generator = _text_generator()
    encoder = PromptEncoder(text_generator, BENCHMARKS["mmlu"], PromptStyle(), 0)
    item = Item("0", "Which?", choices=("A", "two files"))
    ranked = encoder.fitted(item).ranked
    tokenizer = text_generator.tokenizer
    assert [tokenizer.decode(ids) for ids in ranked.answers] == ["A", "two files"]
    assert ranked.prompt == encoder.fitted(Item("0", "Which?")).ranked.prompt
    assert not {tokenizer.special_tokens["<|im_end|>"]} & {i for ids in ranked.answers for i in ids}


# --- Running -----------------------------------------------------------------------------------


def test_generated_benchmarks_end_to_end(workdir, data, tmp_path, capsys):
    pytest.importorskip("langdetect", reason="the extra ifeval is not installed")
    names = "gsm8k,bbh,ifeval,mt_bench,alpaca_eval,humaneval"
    assert _run(workdir, data, names, tmp_path) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["prompt_style"] == "chat" and results["step"] == 0
    found = results["benchmarks"]
    assert [found[name]["examples"] for name in found] == [3, 3, 1, 2, 1, 1]
    assert set(found["gsm8k"]["metrics"]) == {"strict_match", "flexible_extract"}
    assert set(found["bbh"]["groups"]) == {"navigate", "word_sorting"}
    assert "exact_match, mean of groups" in found["bbh"]["metrics"]
    assert len(found["ifeval"]["metrics"]) == 4
    assert found["gsm8k"]["seconds"] > 0 and found["gsm8k"]["new_tokens_now"] >= 3
    lines = _lines(tmp_path, "gsm8k")
    assert [line["id"] for line in lines] == ["0", "1", "2"]
    # Files for judges hold every answer; the second turn followed the first one.
    model_answer = tmp_path / "mt_bench" / "model_answer" / "tiny.jsonl"
    judged = [json.loads(line) for line in model_answer.read_text().splitlines()]
    turns = {(line["id"], line["turn"]): line for line in _lines(tmp_path, "mt_bench")}
    assert [len(line["choices"][0]["turns"]) for line in judged] == [2, 2]
    assert turns["81", 1]["question"] == "Count again."
    assert turns["81", 0]["prompt_ids"] != turns["81", 1]["prompt_ids"]
    outputs = json.loads((tmp_path / "alpaca_eval" / "model_outputs.json").read_text())
    assert outputs[0]["generator"] == "tiny"
    assert (tmp_path / "humaneval" / "samples.jsonl").exists()
    printed = capsys.readouterr().out
    assert "strict_match" in printed and "for the judge:" in printed
    # `ift compare` reads the answers.
    scores = read_answers(str(tmp_path / "answers" / "gsm8k.jsonl")).scores
    assert set(scores) == {"exact_match", "strict_match", "flexible_extract"}
    assert read_answers(str(tmp_path / "answers" / "ifeval.jsonl")).scores


def test_an_interrupted_run_continues_and_gives_the_same(
    workdir, data, tmp_path, capsys, monkeypatch
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _run(workdir, data, "gsm8k", whole) == 0
    generate_blocks = Generator._generate_blocks
    calls = []

    def interrupted(*args):
        calls.append(None)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return generate_blocks(*args)

    monkeypatch.setattr(Generator, "_generate_blocks", interrupted)
    assert _run(workdir, data, "gsm8k", cut) == 128 + signal.SIGTERM
    assert "stopped by a signal: gsm8k: " in capsys.readouterr().err
    file = cut / "answers" / "gsm8k.jsonl"
    with open(file, "a") as stream:
        stream.write('{"id": "2", "tu')  # As a kill leaves it.
    assert not (cut / "results.json").exists()
    assert _run(workdir, data, "gsm8k", cut) == 0
    assert file.read_bytes() == (whole / "answers" / "gsm8k.jsonl").read_bytes()
    assert "gsm8k: 3 problems; " in capsys.readouterr().out

    # Nothing is left to answer; other settings are refused by name.
    assert _run(workdir, data, "gsm8k", cut) == 0
    assert (
        json.loads((cut / "results.json").read_text())["benchmarks"]["gsm8k"]["answered_now"] == 0
    )
    assert _run(workdir, data, "gsm8k", cut, "--few-shot", "0") == 2
    assert "gsm8k.jsonl: answers 0 after another prompt" in capsys.readouterr().err
    assert _run(workdir, data, "gsm8k", cut, "--max-new-tokens", "7") == 2
    assert "was begun with max_new_tokens 6, now it is 7" in capsys.readouterr().err


def test_prompts_that_do_not_fit_are_counted(workdir, data, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(data, root)
    shown = {"question": "Count?", "answer": "apples " * 45 + "\n#### 45"}  # Eight do not fit.
    long = {"question": "apples " * 600, "answer": "#### 600"}
    (root / "gsm8k" / "train.jsonl").write_text((json.dumps(shown) + "\n") * 8)
    with open(root / "gsm8k" / "test.jsonl", "a") as file:
        file.write(json.dumps(long) + "\n")
    assert _run(workdir, root, "gsm8k", tmp_path) == 0
    result = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["gsm8k"]
    assert (result["examples"], result["shortened"], result["too_long"]) == (4, 3, 1)
    assert result["metrics"]["strict_match"]["n"] == 4 and len(_lines(tmp_path, "gsm8k")) == 3
    assert "not fitting, counted as wrong: 1 prompt" in capsys.readouterr().out
    assert _run(workdir, root, "gsm8k", tmp_path / "none", "--max-new-tokens", "499") == 2
    assert "gsm8k: no prompt fits the model's max_length 500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "3"], "--limit: is for --benchmarks, which is not given"),
        (["--benchmarks", "gsm8k"], "expected --benchmark-data DIR"),
        (
            ["--benchmarks", "gsm8k", "--benchmark-data", "x", "--config.train.steps=1"],
            "--config: is not for --benchmarks",
        ),
        (
            ["--benchmarks", "gsm8k", "--benchmark-data", "x", "--prompt-style", "plain"]
            + ["--few-shot-as-turns"],
            "plain text has no turns",
        ),
        (["--benchmarks", "gsm8k", "--which", "train"], "--which: is not for --benchmarks"),
        (["--benchmarks", "gsm8k", "--benchmark-data", "/none/here"], "/none/here: no such folder"),
    ],
)
def test_flags_that_do_not_go_together_are_named(flags, message, workdir, capsys):
    assert main(["eval", "--workdir", workdir, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_conversation_needs_the_chat_style(workdir, data, tmp_path, capsys):
    assert _run(workdir, data, "mt_bench", tmp_path, "--prompt-style", "plain") == 2
    assert "mt_bench is a conversation; expected chat" in capsys.readouterr().err
