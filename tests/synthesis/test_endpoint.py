"""A model behind HTTP: what is sent, what is read, and what happens if the server fails."""

import pytest

from ift_jax.errors import UserError
from ift_jax.synthesis.endpoint import MAX_ATTEMPTS, MAX_UNREADABLE, EndpointCompleter
from ift_jax.synthesis.generator import TextCompletion, TextRequest
from ift_jax.synthesis.own_decoder import DecoderCompleter
from ift_jax.text.records import Message
from tests.serving import served
from tests.synthesis.http_model import echo, serving

TEXT = TextRequest("Task 9:", 16, 0.7, 0.5, stop=("\n\n",), seed=5, log_prob=True)
CHAT = TextRequest((Message("user", "Hello"),), 4, 0.7, n=2, seed=6, log_prob=True)


def completer(url, pauses=None):
    sleep = (lambda seconds: None) if pauses is None else pauses.append
    return EndpointCompleter(url, "small", concurrency=2, timeout=5, sleep=sleep)


def test_every_field_is_passed_on_and_answers_keep_their_order(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with serving(echo) as (url, received):
        answers = completer(url).complete([TEXT, CHAT, TextRequest("last", 1)])
    assert answers == [
        [TextCompletion("Task 9:", "length", -1.5, 2)],
        [TextCompletion("Hi", "stop", -0.25, 1)] * 2,
        [TextCompletion("last", "length", -1.5, 2)],
    ]
    bodies = {path: body for path, body, _ in received if body.get("prompt") != "last"}
    assert bodies["/v1/completions"] == {
        "model": "small",
        "prompt": "Task 9:",
        "max_tokens": 16,
        "temperature": 0.7,
        "top_p": 0.5,
        "stop": ["\n\n"],
        "seed": 5,
        "n": 1,
        "logprobs": 1,
    }
    chat = bodies["/v1/chat/completions"]
    assert chat["messages"] == [{"role": "user", "content": "Hello"}]
    assert (chat["n"], chat["seed"], chat["logprobs"]) == (2, 6, True)
    assert {key for _, _, key in received} == {"Bearer key"}


def test_failures_that_pass_are_tried_again_with_growing_pauses():
    def answer(path, body, number):
        if number == 1:
            return 503, {}, b"starting"
        if number == 2:
            return 429, {"Retry-After": "7"}, {"error": {"message": "slow down"}}
        return echo(path, body, number)

    pauses = []
    with serving(answer) as (url, received):
        assert completer(url, pauses).complete([TEXT])[0][0].text == "Task 9:"
    assert len(received) == 3 and pauses == [1.0, 7.0]


def test_a_server_that_stays_away_is_one_line_after_bounded_attempts():
    pauses = []
    with pytest.raises(UserError) as error:
        completer("http://127.0.0.1:9/v1", pauses).complete([TEXT])
    assert pauses == [2.0**i for i in range(MAX_ATTEMPTS - 1)]
    message = str(error.value)
    assert message.startswith("--endpoint http://127.0.0.1:9/v1/completions: no answer after")
    assert "Connection refused" in message and "\n" not in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, {"error": {"message": "no model 'small'"}}), "status 404: no model 'small'"),
        ((401, {}, b"<html>\nno\n</html>"), "status 401: <html> no </html>"),
    ],
)
def test_an_answer_that_will_not_change_is_one_line_at_once(answer, message):
    with serving(lambda *_: answer) as (url, received):
        with pytest.raises(UserError) as error:
            completer(url).complete([TEXT])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(received) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column 1: Expecting value; expected JSON"),
        (b"<html>", "column 1: Expecting value; expected JSON"),
        (b'{"choices": [{"text": "Na', "expected JSON"),
        ({"choices": []}, "expected 1 choices; got"),
        ({"choices": [{"text": 3}]}, "expected a choice with a text"),
        ({"choices": [{}]}, "expected a choice with a text"),
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again_twice(content, message):
    def one_bad_answer(path, body, number):
        return (200, {}, content) if number == 1 else echo(path, body, number)

    with serving(one_bad_answer) as (url, received):
        assert completer(url).complete([TEXT])[0][0].text == "Task 9:"
    assert len(received) == 2
    with serving(lambda *_: (200, {}, content)) as (url, received):
        with pytest.raises(UserError) as error:
            completer(url).complete([TEXT])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(received) == MAX_UNREADABLE


@pytest.mark.parametrize(
    "logprobs", [{"token_logprobs": 5}, {"content": ["x"]}, {"content": 5}, {}, [], None]
)
def test_log_probabilities_of_another_form_are_not_known(logprobs):
    answer = {"choices": [{"text": "a\ud83d", "finish_reason": "stop", "logprobs": logprobs}]}
    with serving(lambda *_: (200, {}, answer)) as (url, _):
        # What is no text cannot be written to a file.
        assert completer(url).complete([TEXT]) == [[TextCompletion("a?", "stop")]]


@pytest.mark.parametrize("choice", [{"text": None}, {"message": {"content": None}}])
def test_an_answer_without_a_text_is_an_empty_one(choice):
    answer = {"choices": [choice | {"finish_reason": "length"}]}
    with serving(lambda *_: (200, {}, answer)) as (url, received):
        assert completer(url).complete([TEXT]) == [[TextCompletion("", "length")]]
    assert len(received) == 1


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UserError, match="expected an address such as"):
        completer("localhost:8000")


def test_ift_serve_answers_as_the_decoder_that_it_serves(monkeypatch):
    served.compile_few_programs(monkeypatch)
    model = served.open_model()
    own = DecoderCompleter(model.text_generator, lambda: model.generator, batch_size=4)
    requests = [
        TextRequest("Name a color", 6, 0.9, seed=3, stop=("q",)),
        TextRequest((Message("user", "Name a color"),), 6, 1.0, seed=4, n=2),
    ]
    with served.serving(model) as (server, _, _):
        endpoint = EndpointCompleter(f"{server.address}/v1", "tiny", concurrency=1)
        answers = endpoint.complete(requests)
    for mine, theirs in zip(own.complete(requests), answers, strict=True):
        # The server leaves out the white space around a chat's answers.
        texts = [(answer.text.strip(), answer.finish_reason) for answer in mine]
        assert texts == [(answer.text.strip(), answer.finish_reason) for answer in theirs]
