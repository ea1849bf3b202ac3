"""Our decoder behind the interface of synthesis: the same answers as its own."""

import pytest

from ift_jax.decoding import Options, Request, Sampling
from ift_jax.errors import UserError
from ift_jax.synthesis.generator import TOO_LONG, Interrupted, TextRequest
from ift_jax.synthesis.own_decoder import DecoderCompleter
from ift_jax.text.records import Message
from tests import small_models


@pytest.fixture
def completer(monkeypatch):
    small_models.compile_one_program(monkeypatch)
    text_generator, generator = small_models.open_random_model()
    return DecoderCompleter(text_generator, lambda: generator, batch_size=3)


def test_answers_are_the_decoders_and_do_not_depend_on_the_rest_of_the_batch(completer):
    tokenizer = completer.text_generator.tokenizer
    requests = [
        TextRequest("Name a color", 8, 0.9, 0.8, 1.3, seed=1 << 40, log_prob=True),
        TextRequest((Message("user", "Name a color"),), 5, 1.0, seed=3, n=2),
        TextRequest("plum, apple", 6),
    ]
    together = completer.complete(requests)
    for request, answers in zip(requests, together, strict=True):
        [alone] = completer.complete([request])
        assert [answer.text for answer in alone] == [answer.text for answer in answers]

    ids = tokenizer.encode("Name a color")
    sampling = Sampling(0.9, top_p=0.8, repetition_penalty=1.3)
    request = Request(ids, Options(8, sampling, 1 << 40, logprobs=0))
    [expected] = completer.generator.complete([request])[0].completions
    answer = together[0][0]
    assert (answer.text, answer.finish_reason) == (expected.text, expected.finish_reason)
    log_prob = sum(token.logprob for token in expected.logprobs)
    assert answer.log_prob == pytest.approx(log_prob, rel=1e-5)  # Batches round differently.
    assert answer.n_tokens == len(expected.ids)
    assert len(together[1]) == 2 and together[1][0].log_prob is None


def test_a_prompt_that_does_not_fit_is_answered_as_too_long(completer):
    fits, long = TextRequest("plum", 4), TextRequest("plum " * 200, 4)
    answers = completer.complete([long, fits])
    assert answers[0][0].finish_reason == TOO_LONG and answers[0][0].text == ""
    assert answers[1][0].text == completer.complete([fits])[0][0].text


def test_a_signal_ends_it_before_the_next_block_of_tokens(completer):
    looks = iter([False, False, True])
    generator = completer.generator
    stopping = DecoderCompleter(completer.text_generator, lambda: generator, 3, lambda: next(looks))
    with pytest.raises(Interrupted):
        stopping.complete([TextRequest("plum", 90)])


def test_control_strings_are_tokens_only_where_that_is_asked_for(completer):
    tokenizer = completer.text_generator.tokenizer
    control = next(iter(tokenizer.special_tokens))
    spelled = completer._ids(TextRequest(control, 1))
    assert completer._ids(TextRequest(control, 1, controls=True)) == [
        tokenizer.special_tokens[control]
    ]
    assert tokenizer.special_tokens[control] not in spelled


def test_the_header_is_what_the_template_writes_before_a_users_text(completer):
    header = completer.user_header()
    written = completer.text_generator.formatter.text([Message("user", "Name a color")])
    assert header and written.startswith(header + "Name a color")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: expected 1 or more"),
        ({"temperature": -1}, "temperature: expected 0 to 100"),
        ({"top_p": 0}, "top_p: expected more than 0"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected more than 0"),
        ({"n": 2}, "n: expected 1, or more with a temperature above 0"),
    ],
)
def test_a_request_out_of_bounds_is_refused(fields, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        TextRequest("plum", **({"max_tokens": 4} | fields))
