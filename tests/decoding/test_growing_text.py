"""A conversation's cache: answers are those without it, and little is read again."""

import numpy as np
import pytest

from ift_jax.decoding import GrowingText, Options, Request, Sampling
from tests.decoding.test_requests import open_generator

OPTIONS = Options(6)
PENALIZED = Options(6, Sampling(1.2, top_k=20, repetition_penalty=1.3), seed=3, logprobs=1)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    for module in ("request_batch", "growing_text"):
        name = f"ift_jax.decoding.{module}.bucket"
        monkeypatch.setattr(name, lambda n: next(size for size in (16, 48, 96, 192) if n <= size))


def answer(text, prompt, options=OPTIONS):
    """The answer to a prompt, and how many of its tokens were read."""
    *_, output = text.stream(Request(prompt, options))
    return output.completions[0], text.n_read


def assert_equal(got, want):
    assert got[:3] == want[:3]
    for a, b in zip(got.logprobs or [], want.logprobs or [], strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


@pytest.mark.parametrize("options", [OPTIONS, PENALIZED])
def test_a_long_conversation_is_read_once(options):
    generator = open_generator()
    text = GrowingText(generator)
    rng = np.random.default_rng(5)
    history = rng.integers(3, 80, 9).tolist()
    read = []
    for turn in range(5):  # From 9 to 61 tokens: the cache grows on the way.
        got, n_read = answer(text, history, options)
        [alone] = generator.complete([Request(history, options)])
        assert_equal(got, alone.completions[0])
        read.append(n_read)
        history = [*history, *got.ids, *rng.integers(3, 80, 4 + turn).tolist()]
    # Every later turn reads the new user's tokens and the one before them, the last of the answer,
    # which predicted nothing: all others that were generated are in the cache.
    assert read == [9, 4 + 1, 5 + 1, 6 + 1, 7 + 1]


def test_other_beginnings_and_broken_off_answers_are_read_again():
    generator = open_generator()
    text = GrowingText(generator)
    prompt = list(range(5, 20))
    first, _ = answer(text, prompt)
    # The same prompt again: its last token is read, to predict from.
    assert answer(text, prompt) == (first, 1)
    # An answer that was changed, as by white space that is stripped: read from there on.
    changed = [*prompt, first.ids[0], 79, 78]
    [alone] = generator.complete([Request(changed, OPTIONS)])
    got, n_read = answer(text, changed)
    assert_equal(got, alone.completions[0])
    assert n_read == 2
    # One that the user breaks off after a block: what it had made counts.
    stream = text.stream(Request(changed, OPTIONS))
    broken = next(stream).completions[0]
    stream.close()
    assert broken.ids == got.ids[:1]
    again, n_read = answer(text, [*changed, *broken.ids, 40, 41])
    assert n_read == 1 + 2
    [alone] = generator.complete([Request([*changed, *broken.ids, 40, 41], OPTIONS)])
    assert_equal(again, alone.completions[0])
    # Another system message.
    assert answer(text, [44, *prompt])[1] == 16
    text.reset()
    assert answer(text, [44, *prompt])[1] == 16


@pytest.mark.parametrize("architecture", ["decoder", "hybrid"])
def test_a_prompt_after_one_whose_reading_was_interrupted_is_read_as_a_whole(
    architecture, monkeypatch
):
    """Ctrl-C while the rest of a prompt is read, or its program is compiled."""
    generator = open_generator(architecture)
    text = GrowingText(generator)
    prompt = list(range(5, 20))
    first, _ = answer(text, prompt)
    prompt = [*prompt, *first.ids, 40, 41]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ift_jax.decoding.growing_text.continue_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            answer(text, prompt)
    got, n_read = answer(text, prompt)
    [alone] = generator.complete([Request(prompt, OPTIONS)])
    assert_equal(got, alone.completions[0])
    assert n_read == len(prompt)


def test_states_of_linear_attention_go_on_from_the_last_prompt_or_answer():
    generator = open_generator("hybrid")
    text = GrowingText(generator)

    def check(prompt, n_read_wanted):
        got, n_read = answer(text, prompt)
        [alone] = generator.complete([Request(prompt, OPTIONS)])
        assert_equal(got, alone.completions[0])
        assert n_read == n_read_wanted
        return [*prompt, *got.ids]

    history = check(list(range(5, 20)), 15)
    history = check([*history, 40, 41], 3)  # With the answer's last token, which was not fed back.
    prompt = [*history, 42, 43]
    check(prompt, 3)
    # An answer that was changed: from the end of the prompt before it, not from within the answer.
    check([*prompt, 79, 78, 77], 3)
    check(prompt, len(prompt))  # A token less than the last prompt: from the beginning.
    check(prompt, len(prompt))  # The same again: no state is that of all tokens but the last.


@pytest.mark.parametrize(
    ("architecture", "fields"), [("t5", {}), ("decoder", {"bidirectional_prompt": True})]
)
def test_a_prompt_that_is_read_in_both_directions_is_read_as_a_whole(architecture, fields):
    generator = open_generator(architecture, **fields)
    text = GrowingText(generator)
    for prompt in ([5, 6, 7], [5, 6, 7, 8, 9]):
        got, n_read = answer(text, prompt)
        assert n_read == len(prompt)
        [alone] = generator.complete([Request(prompt, OPTIONS)])
        assert_equal(got, alone.completions[0])
