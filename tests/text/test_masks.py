"""The mask contract: every token against the characters of the rendered conversation.

The reference below writes the conversation as one string, by hand for each template, and
notes which bytes are trained and where a control token may be. Every token's bytes are then
laid along that string. Nothing of `ift_jax.text.chat_templates.registry` is used.
"""

import dataclasses

import numpy as np
import pytest

from ift_jax.text.dropped import NOTHING_TRAINED
from ift_jax.text.records import Message, Record
from tests.text.conversations import conversations
from tests.text.formatters import small_formatter
from tests.text.small_tokenizers import KINDS, token_bytes

TEMPLATES = ("chatml", "tulu", "olmo2", "plain")
TOOLS = ("chatml", "plain")


@dataclasses.dataclass
class Reference:
    """A conversation as bytes, with the weight of each and the starts of control tokens."""

    text: bytes = b""
    weights: list[float] = dataclasses.field(default_factory=list)
    controls: dict[int, bytes] = dataclasses.field(default_factory=dict)

    def add(self, text: str, weight: float = 0.0, control: bool = False) -> None:
        if control:
            self.controls[len(self.text)] = text.encode()
        self.text += text.encode()
        self.weights += [weight] * len(text.encode())


def reference(kind: str, template: str, record: Record, train_on: str) -> Reference:
    eos = {"sentencepiece": "</s>", "huggingface": "<|endoftext|>"}[kind]
    marked = kind == "sentencepiece"  # Whether the tokenizer has Tulu's markers as control tokens.
    messages = record.messages
    last_answer = max(i for i, m in enumerate(messages) if m.role == "assistant")
    out = Reference()
    if template == "olmo2":
        out.add("<s>", control=True)
    for i, message in enumerate(messages):
        weight = 0.0
        if message.role == "assistant" and (train_on == "all" or i == last_answer):
            weight = 1.0 if message.weight is None else message.weight
        last = i == len(messages) - 1
        if template == "chatml":
            out.add("<|im_start|>", control=True)
            out.add(message.role + "\n")
            out.add(message.content, weight)
            out.add("<|im_end|>", weight, control=True)
            out.add("\n")
        elif template in ("tulu", "olmo2"):
            out.add(f"<|{message.role}|>", control=marked)
            out.add("\n")
            out.add(message.content, weight)
            if message.role == "assistant":
                out.add(eos, weight, control=True)
            out.add("" if last and message.role == "assistant" else "\n")
        elif message.role == "assistant":
            if not out.text:
                out.add("<s>", control=True)  # The answer is predicted from it.
            out.add(message.content, weight)
            out.add(eos, weight, control=True)
        elif message.content:
            out.add(message.content + ("" if last else "\n"))
    return out


@pytest.mark.parametrize("train_on", ["all", "last"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_the_weight_of_its_characters(kind, template, train_on):
    formatter = small_formatter(kind, template=template, train_on=train_on)
    control_ids = set(formatter.tokenizer.special_tokens.values())
    checked = dropped = 0
    for record in conversations(1, 300, tools=template in TOOLS):
        expected = reference(kind, template, record, train_on)
        if not any(expected.weights):
            assert formatter.encode(record) == NOTHING_TRAINED
            dropped += 1
            continue
        (example,) = formatter.encode(record)
        assert example.tokens.dtype == np.int32 and example.weights.dtype == np.float32
        at, controls = 0, {}
        for token, weight in zip(example.tokens.tolist(), example.weights.tolist(), strict=True):
            piece = token_bytes(kind, token)
            assert expected.text[at : at + len(piece)] == piece
            of_bytes = set(expected.weights[at : at + len(piece)])
            assert of_bytes == {weight}, "a token stands for trained and untrained text"
            if token in control_ids:
                controls[at] = piece
            at += len(piece)
        assert at == len(expected.text)
        assert controls == expected.controls
        first = next(i for i, weight in enumerate(example.weights) if weight > 0)
        assert example.prefix_length == first > 0
        checked += 1
    assert checked > 200 and dropped > 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_one_bos_where_the_template_has_one(kind, template):
    formatter = small_formatter(kind, template=template)
    bos = formatter.tokenizer.bos_id
    expected = 1 if template == "olmo2" else 0
    record = Record((Message("user", "<s> Hello <s>"), Message("assistant", "<s>")))
    (example,) = formatter.encode(record)
    assert example.tokens.tolist().count(bos) == expected
    assert formatter.prompt(record.messages[:1]).tolist().count(bos) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_stop_token_of_every_trained_turn_is_trained(kind, template):
    formatter = small_formatter(kind, template=template)
    tokenizer = formatter.tokenizer
    stop = tokenizer.special_tokens["<|im_end|>"] if template == "chatml" else tokenizer.eos_id
    assert formatter.stop_ids[0] == stop
    assert tokenizer.eos_id in formatter.stop_ids
    record = Record(
        (
            Message("user", "Hello"),
            Message("assistant", "one", 0.5),
            Message("user", "Hello"),
            Message("assistant", "", 2.0),
            Message("user", "Hello"),
            Message("assistant", "three", 0.0),
        )
    )
    (example,) = formatter.encode(record)
    trained_stops = example.weights[(example.tokens == stop) & (example.weights > 0)]
    assert trained_stops.tolist() == [0.5, 2.0]
    # Nothing else is trained but the texts of those turns.
    texts = tokenizer.decode(example.tokens[example.weights > 0].tolist())
    assert texts == "one"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_training_ids_begin_with_the_ids_of_the_prompt(kind, template):
    formatter = small_formatter(kind, template=template)
    # Weights must not change ids: generation may be asked for an untrained turn.
    checked = 0
    for record in conversations(2, 300, tools=template in TOOLS):
        answers = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
        plain = dataclasses.replace(
            record, messages=tuple(Message(m.role, m.content) for m in record.messages)
        )
        whole = formatter.encode(plain)[0].tokens.tolist()
        for turn in answers:
            prompt = formatter.prompt(record.messages[:turn]).tolist()
            assert whole[: len(prompt)] == prompt
            answer = formatter.tokenizer.encode(record.messages[turn].content)
            if not any(s in record.messages[turn].content for s in ("<", "{")):
                stop = formatter.stop_ids[0]
                assert whole[len(prompt) :][: len(answer) + 1] == [*answer, stop]
            checked += 1
        trained = [i for i in answers if record.messages[i].weight != 0]
        if not trained:
            continue
        (example,) = formatter.encode(record)
        assert example.tokens.tolist() == whole
        prompt = formatter.prompt(record.messages[: trained[-1]])
        assert example.tokens[: example.prompt_length].tolist() == prompt.tolist()
    assert checked > 300


@pytest.mark.parametrize("kind", KINDS)
def test_last_mode_trains_the_last_answer_alone(kind):
    formatter = small_formatter(kind, template="chatml", train_on="last")
    record = Record(
        (
            Message("user", "a"),
            Message("assistant", "first", 3.0),
            Message("user", "b"),
            Message("assistant", "second", 0.25),
        )
    )
    (example,) = formatter.encode(record)
    assert formatter.tokenizer.decode(example.tokens[example.weights > 0].tolist()) == "second"
    assert set(example.weights.tolist()) == {0.0, 0.25}
    assert example.prefix_length == example.prompt_length
    both = small_formatter(kind, template="chatml").encode(record)[0]
    assert both.tokens.tolist() == example.tokens.tolist()
    assert both.prefix_length < both.prompt_length == example.prompt_length
