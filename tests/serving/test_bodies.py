"""Bodies: each field is read or refused by name, before anything reaches the devices."""

import dataclasses
import json

import pytest

from ift_jax.config.schema import DataConfig
from ift_jax.serving.api_error import ApiError
from ift_jax.serving.chat_call import ChatCall
from ift_jax.serving.completion_call import CompletionCall
from ift_jax.serving.fields import parse_body
from ift_jax.text.records import Message, Record
from tests.serving import served
from tests.small_models import ARCHITECTURES, CONFIG

HELLO = [{"role": "user", "content": "Anna counts"}]


@pytest.fixture(scope="module")
def model():
    return served.open_model(max_prompts=8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "body: column 1"),
        (b"[1]", "body: expected a JSON object, found a list"),
        (b"{", "body: column 2"),
        (b'{"prompt": "\xff"}', "body: byte 13 is not valid UTF-8"),
        (b'{"a": 1, "a": 2}', "body: key 'a' occurs twice"),
        (b'{"temperature": NaN}', "body: NaN is no JSON number"),
        (b"[" * 100_000, "body: nested too deeply"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "body: a number has more than"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(content, message):
    with pytest.raises(ApiError, match=message) as error:
        parse_body(content)
    assert error.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "prompt", "is missing"),
        ({"prompt": []}, "prompt", "expected at least one"),
        ({"prompt": 3}, "prompt", "expected a text or a list of token ids, found a number"),
        ({"prompt": ["x", 3]}, "prompt", r"prompt\[1\]: expected a text or a list"),
        ({"prompt": [[1, "x"]]}, "prompt", "a list of other things"),
        ({"prompt": [1, True]}, "prompt", r"prompt\[0\]: expected a text or a list"),
        ({"prompt": [[]]}, "prompt", "a decoder needs at least one token"),
        ({"prompt": ["x"] * 9}, "prompt", "expected at most 8 prompts; found 9"),
        ({"prompt": [480]}, "prompt", "expected token ids from 0 to 479; found 480"),
        ({"prompt": [-1]}, "prompt", "found -1"),
        ({"prompt": [10**30]}, "prompt", "expected token ids"),
        ({"prompt": "\ud83d"}, "prompt", "half of a surrogate pair"),
        ({"prompt": [5] * 128}, "prompt", "128 tokens and an answer: expected at most 128"),
        ({"prompt": [5], "max_tokens": 128}, "prompt", "1 tokens and max_tokens 128: expected at"),
        ({"prompt": "x" * 100_000}, "prompt", "100000 characters"),
        ({"max_tokens": 0}, "max_tokens", "expected a whole number from 1"),
        ({"max_tokens": "5"}, "max_tokens", "found a string"),
        ({"max_tokens": 1.5}, "max_tokens", "found 1.5"),
        ({"max_tokens": True}, "max_tokens", "found true or false"),
        ({"temperature": -1}, "temperature", "expected 0 or more; found -1"),
        ({"temperature": 10**400}, "temperature", "expected 0 or more; found inf"),
        ({"temperature": "0"}, "temperature", "expected a number; found a string"),
        ({"top_p": 0}, "top_p", "more than 0, and at most 1"),
        ({"top_k": -2}, "top_k", "from -1"),
        ({"min_p": 2}, "min_p", "0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "more than 0"),
        ({"n": 5}, "n", "from 1 to 4; found 5"),
        ({"seed": 2**63}, "seed", "expected a whole number"),
        ({"seed": 10**60}, "seed", "found a huge number"),
        ({"stop": ""}, "stop", "not empty"),
        ({"stop": [1]}, "stop", "expected a text, found a number"),
        ({"stop": ["x"] * 65}, "stop", "at most 64"),
        ({"stream": 1}, "stream", "expected true or false"),
        ({"stream_options": {}}, "stream_options", "expected stream to be true"),
        ({"stream": True, "stream_options": {"x": 1}}, "x", "no such field"),
        ({"logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"logprobs": True}, "logprobs", "expected a whole number"),
        ({"echo": "yes"}, "echo", "expected true or false"),
        ({"best_of": 2}, "best_of", "is not supported"),
        ({"suffix": "x"}, "suffix", "is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "is not supported"),
        ({"presence_penalty": False}, "presence_penalty", "is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "is not supported"),
        ({"max_token": 5}, "max_token", "did you mean 'max_tokens'"),
        ({"messages": HELLO}, "messages", "no such field"),
    ],
)
def test_a_completion_that_cannot_be_given_is_refused_by_name(model, fields, param, message):
    body = fields if "prompt" in fields or not fields else {"prompt": "x", **fields}
    with pytest.raises(ApiError, match=message) as error:
        CompletionCall(body, model)
    assert (error.value.status, error.value.param) == (400, param)
    json.dumps(error.value.body).encode()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": []}, "messages", "found an empty list"),
        ({"messages": "x"}, "messages", "found a string"),
        ({"messages": [3]}, "messages", r"messages\[0\]: expected an object"),
        ({"messages": [{"role": "user"}]}, "messages", "field 'content' is missing"),
        ({"messages": [{"role": "x", "content": "x"}]}, "messages", "expected one of system"),
        ({"messages": [*HELLO, *HELLO]}, "messages", "expected 'assistant' after 'user'"),
        ({"messages": [{"role": "text", "content": "x"}]}, "messages[0].role", "has no turns"),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": "x"}]},
            "messages[1].role",
            "is not continued",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
            "found 'image_url'",
        ),
        ({"messages": [{**HELLO[0], "mood": "gay"}]}, "messages[].mood", "not supported"),
        ({"messages": [{**HELLO[0], "content": "\ud83d"}]}, "messages", "expected valid UTF-8"),
        ({"messages": [{**HELLO[0], "content": "x " * 200}]}, "messages", "expected at most 128"),
        ({"tools": [{"type": "function"}]}, "tools", "expected a tool's name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            "messages",
            "does not write tools",
        ),
        ({"tool_choice": "required"}, "tool_choice", "is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "is not supported"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "is not supported"),
        ({"top_logprobs": 2}, "top_logprobs", "expected logprobs to be true"),
        ({"logprobs": 2}, "logprobs", "expected true or false"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_completion_tokens", "differ"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs", "not read"),
        ({"functions": [{}]}, "functions", "is not supported"),
        ({"prompt": "x"}, "prompt", "no such field"),
    ],
)
def test_a_chat_that_cannot_be_given_is_refused_by_name(model, fields, param, message):
    with pytest.raises(ApiError, match=message) as error:
        ChatCall({"messages": HELLO, **fields}, model)
    assert (error.value.status, error.value.param) == (400, param)
    json.dumps(error.value.body).encode()


def test_another_model_is_not_found(model):
    with pytest.raises(ApiError, match="'tiny' alone; found 'gpt'") as error:
        CompletionCall({"prompt": "x", "model": "gpt"}, model)
    assert (error.value.status, error.value.body["error"]["code"]) == (404, "model_not_found")


def test_what_changes_nothing_is_taken(model):
    nulls = ("suffix", "n", "stop", "seed", "stream", "logprobs", "logit_bias", "unheard_of")
    neutral = {"best_of": 1, "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}}
    CompletionCall({"prompt": "x", **dict.fromkeys(nulls)}, model)
    CompletionCall({"prompt": "x", "user": "somebody", **neutral}, model)
    chat = {"response_format": {"type": "text"}, "tool_choice": "auto", "metadata": {"a": "b"}}
    ChatCall({"messages": HELLO, "max_completion_tokens": 5, "max_tokens": 5, **chat}, model)


def test_defaults_are_those_of_openai_where_the_model_has_room(model):
    [request] = CompletionCall({"prompt": [5, 6]}, model).requests
    assert request.options.max_new_tokens == 16 and request.options.sampling.temperature == 1
    [request] = CompletionCall({"prompt": [5] * 120}, model).requests
    assert request.options.max_new_tokens == 8
    [request] = ChatCall({"messages": HELLO}, model).requests
    assert request.options.max_new_tokens == 128 - len(request.prompt)


def test_a_chat_has_the_ids_of_training_and_a_completion_those_of_its_text(model):
    formatter = model.text_generator.formatter
    [request] = ChatCall({"messages": HELLO}, model).requests
    ids = request.prompt
    assert model.text(ids) == "<|im_start|>user\nAnna counts<|im_end|>\n<|im_start|>assistant\n"
    # A text that holds control strings is the model's whole input, as clients with a template of
    # their own send it.
    [request] = CompletionCall({"prompt": model.text(ids)}, model).requests
    assert request.prompt == ids
    [request] = CompletionCall({"prompt": ""}, model).requests
    assert request.prompt == formatter.empty_prompt


def test_only_requests_without_a_seed_depend_on_those_before_them(model):
    def drawn_from(**fields):
        [request] = CompletionCall({"prompt": "x", **fields}, model).requests
        return request.options.seed, request.index

    assert drawn_from(seed=-5) == drawn_from(seed=-5) == (-5, 0)
    first, second = drawn_from(), drawn_from()
    assert first[0] == second[0] == 7 and second[1] == first[1] + 1


def test_a_stop_that_is_a_control_string_is_a_stop_id(model):
    [request] = CompletionCall({"prompt": "x", "stop": ["<|user|>", "b"]}, model).requests
    options = request.options
    assert options.stop_ids == (model.tokenizer.special_tokens["<|user|>"],)
    assert options.stop_strings == ("b",)


def test_what_a_template_leaves_out_is_refused_even_where_a_run_may_train_on_it():
    fmt = dataclasses.replace(CONFIG.format, unwritten="leave-out")
    lenient = served.open_other_model(dataclasses.replace(CONFIG, format=fmt))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(ApiError, match="does not write tools") as error:
        ChatCall({"messages": HELLO, "tools": tools}, lenient)
    assert "format.unwritten" not in error.value.message


def test_an_encoder_decoder_reads_inputs_and_predicts_no_prompt():
    t5 = dataclasses.replace(ARCHITECTURES["encoder_decoder"], vocab_size=480)
    data = DataConfig(mixture="none", inputs_length=64, targets_length=64)
    model = served.open_other_model(dataclasses.replace(CONFIG, model=t5, data=data))
    [request] = CompletionCall({"prompt": "Anna counts"}, model).requests
    record = Record((Message("user", "Anna counts"),), text_to_text=True)
    assert request.prompt == model.formatter.prompt(record).tolist()
    CompletionCall({"prompt": ""}, model)
    for fields, message in [
        ({"echo": True, "logprobs": 1}, "an encoder-decoder does not predict its prompt"),
        ({"echo": True, "max_tokens": 0}, "from 1"),
        ({"max_tokens": 65}, "65: expected at most 64"),
        ({"prompt": [5] * 65}, "65 tokens: expected at most 64"),
    ]:
        with pytest.raises(ApiError, match=message) as error:
            CompletionCall({"prompt": "x", **fields}, model)
        assert error.value.status == 400
