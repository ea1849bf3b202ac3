"""Training examples of text-to-text records, of encoder-decoders, and of many records at once."""

import dataclasses

import numpy as np
import pytest

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.text.dropped import NOTHING_TRAINED, Dropped
from ift_jax.text.records import Message, Record
from ift_jax.text.rows.parse_record import parse_record
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.shared_data import SHARED, requires_shared
from tests.text import small_tokenizers as small
from tests.text.chat_templates.model_templates import UNSTABLE
from tests.text.conversations import conversations, text_record
from tests.text.formatters import make_formatter, small_formatter
from tests.text.small_tokenizers import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_decoder_reads_inputs_newline_targets_eos(kind):
    formatter = small_formatter(kind, template="plain")
    tokenizer = formatter.tokenizer
    (example,) = formatter.encode(text_record("The user", " counts", references=["x", " counts"]))
    prompt = tokenizer.encode("The user") + tokenizer.encode("\n")
    assert example.tokens.tolist() == [*prompt, *tokenizer.encode(" counts"), tokenizer.eos_id]
    assert example.prompt_length == example.prefix_length == len(prompt)
    assert example.weights.tolist() == [0.0] * len(prompt) + [1.0] * (
        len(example.tokens) - len(prompt)
    )
    assert example.encoder_tokens.size == 0
    assert set(example.references) == {" counts", "x"} and len(example.references) == 2
    assert formatter.prompt(
        parse_record({"inputs": "The user"}, "", prompt_only=True)
    ).tolist() == (prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_token_of_a_decoder_is_never_trained(kind):
    formatter = small_formatter(kind, template="plain")
    tokenizer = formatter.tokenizer
    (example,) = formatter.encode(text_record("", "yes"))
    assert example.tokens.tolist() == [tokenizer.bos_id, *tokenizer.encode("yes"), tokenizer.eos_id]
    assert example.weights[0] == 0 and example.prompt_length == example.prefix_length == 1
    (bare,) = formatter.encode(text_record("", ""))
    assert bare.tokens.tolist() == [tokenizer.bos_id, tokenizer.eos_id]
    assert formatter.prompt([Message("user", "")]).tolist() == [tokenizer.bos_id]
    no_bos = HuggingFaceTokenizer(small.huggingface_definition(), {"eos_token": "<|endoftext|>"})
    formatter = make_formatter(no_bos, length=9, over_length="drop", template="plain")
    (example,) = formatter.encode(text_record("", ""))
    assert example.tokens.tolist() == [0, 0] and example.weights.tolist() == [0, 1]


def test_an_encoder_s_text_begins_with_bos_where_the_tokenizer_puts_one():
    tokenizer = HuggingFaceTokenizer(small.huggingface_definition(), small.NAMES, add_bos=True)
    record = text_record("Count the files.", "Two")
    asked = dataclasses.replace(record, messages=record.messages[:-1])
    ids = tokenizer.encode("Count the files.")

    def encoded(**options):
        formatter = make_formatter(
            tokenizer, "encoder_decoder", template="plain", input_eos=False, **options
        )
        (example,) = formatter.encode(record)
        return formatter, example.encoder_tokens.tolist()

    formatter, tokens = encoded()
    assert tokens == formatter.prompt(asked).tolist() == [tokenizer.bos_id, *ids]
    other, without = encoded(add_bos="never")
    assert without == ids and other.fingerprint != formatter.fingerprint
    cut, kept = encoded(inputs_length=4, over_length="truncate-prompt")
    assert kept[0] == tokenizer.bos_id and len(kept) == 4 and cut.limits.inputs_length == 4


@requires_shared
def test_t5_text_to_text():
    model = str(SHARED / "data/tokenizers/t5_sentencepiece.model")
    tokenizer = load_tokenizer(model, TokenizerConfig(extra_ids=100))
    record = text_record("translate English to German: The house is wonderful.", "Das Haus")

    def encode(input_eos):
        formatter = make_formatter(
            tokenizer, "encoder_decoder", length=20, over_length="error", input_eos=input_eos
        )
        assert formatter.stop_ids == (1,)
        (example,) = formatter.encode(record)
        asked = dataclasses.replace(record, messages=record.messages[:-1])
        assert formatter.prompt(asked).tolist() == example.encoder_tokens.tolist()
        return formatter, example

    formatter, example = encode(True)
    ids = [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5]
    assert example.encoder_tokens.tolist() == [*ids, 1]
    assert encode(False)[1].encoder_tokens.tolist() == ids
    assert example.tokens.tolist() == [*tokenizer.encode("Das Haus"), 1]
    assert example.weights.tolist() == [1.0] * example.tokens.size
    assert (example.prompt_length, example.prefix_length) == (0, 0)
    assert example.references == ("Das Haus",)
    # T5's pieces cannot spell ChatML, so a conversation would lose its turns.
    chat = Record((Message("user", "q"), Message("assistant", "a")))
    with pytest.raises(UserError, match=r"'chatml'.*'<\|im_end\|>' is not one token"):
        formatter.encode(chat)
    with pytest.raises(UserError, match=r"'chatml'.*'<\|im_end\|>' is not one token"):
        make_formatter(tokenizer, length=9, over_length="drop")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_on", ["all", "last"])
def test_an_encoder_decoder_gets_an_example_for_each_trained_answer(kind, train_on):
    formatter = small_formatter(
        kind, architecture="encoder_decoder", template="chatml", train_on=train_on
    )
    tokenizer = formatter.tokenizer
    seen = 0
    for record in conversations(3, 100, tools=True):
        answers = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
        if train_on == "last":
            answers = answers[-1:]
        answers = [i for i in answers if record.messages[i].weight != 0]
        if not answers:
            assert formatter.encode(record) == NOTHING_TRAINED
            continue
        examples = formatter.encode(record)
        for example, turn in zip(examples, answers, strict=True):
            message = record.messages[turn]
            assert tokenizer.decode(example.tokens.tolist()) == message.content
            assert example.tokens[-1] == tokenizer.eos_id
            assert example.tokens.tolist().count(tokenizer.eos_id) == 1
            weight = 1.0 if message.weight is None else message.weight
            assert example.weights.tolist() == [weight] * example.tokens.size
            before = "".join(
                f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in record.messages[:turn]
            )
            eos = {"sentencepiece": "</s>", "huggingface": "<|endoftext|>"}[kind]
            pieces = [small.token_bytes(kind, i) for i in example.encoder_tokens.tolist()]
            assert b"".join(pieces) == (before + "<|im_start|>assistant\n" + eos).encode()
            assert formatter.prompt(record.messages[:turn]).tolist() == (
                example.encoder_tokens.tolist()
            )
            assert example.references == (message.content,)
            seen += 1
    assert seen > 60


def test_the_encoder_reads_eos_as_an_option():
    with_eos, without = (
        small_formatter("sentencepiece", architecture="encoder_decoder", input_eos=eos)
        for eos in (True, False)
    )
    chat = Record((Message("user", "apples"), Message("assistant", "files")))
    for record in (text_record("apples", "files"), chat):
        ids = without.encode(record)[0].encoder_tokens.tolist()
        eos = without.tokenizer.eos_id
        assert with_eos.encode(record)[0].encoder_tokens.tolist() == [*ids, eos]
        assert eos not in ids
        assert without.encode(record)[0].tokens[-1] == eos
    assert without.encode(text_record("", "files"))[0].encoder_tokens.size == 0


def test_references_belong_to_the_last_answer():
    formatter = small_formatter("sentencepiece", architecture="encoder_decoder")
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"))
    ]
    record = parse_record({"messages": messages, "references": ["c"]}, "t:0")
    assert [set(e.references) for e in formatter.encode(record)] == [{"a"}, {"b", "c"}]


CHOICES_AFTER_A_ROUND = {
    "inputs": "2?",
    "targets": "b",
    "history": [["1?", "a"]],
    "choices": ["b", "cd"],
}


@pytest.mark.parametrize("options", [{}, {"train_roles": ("user", "assistant")}])
@pytest.mark.parametrize("template", ["chatml", UNSTABLE])
def test_choices_of_a_conversation_are_its_last_answers_alone(template, options):
    """The ids before and in a choice are those of the conversation that ends in it."""
    formatter = small_formatter(
        "sentencepiece", template=template, unwritten="leave-out", **options
    )
    examples = formatter.encode(parse_record(CHOICES_AFTER_A_ROUND, "f:1"))
    assert [example.choices for example in examples[:-1]] == [()] * (len(examples) - 1)
    last = examples[-1]
    prompt = last.tokens[: last.prompt_length].tolist()
    assert [text for text, _ in last.choices] == ["b", "cd"]
    for text, ids in last.choices:
        alone = parse_record({**CHOICES_AFTER_A_ROUND, "targets": text, "choices": []}, "f:1")
        whole = formatter.encode(alone)[-1]
        end = len(prompt) + len(ids)
        assert whole.tokens[:end].tolist() == prompt + ids
        assert whole.weights[len(prompt) : end].all() and not whole.weights[end:].any()


def test_choices_of_a_conversation_belong_to_an_encoder_decoders_last_answer():
    formatter = small_formatter("sentencepiece", architecture="encoder_decoder")
    first, last = formatter.encode(parse_record(CHOICES_AFTER_A_ROUND, "f:1"))
    assert first.choices == ()
    eos = formatter.tokenizer.eos_id
    assert dict(last.choices) == {
        text: [*formatter.tokenizer.encode(text), eos] for text in ("b", "cd")
    }


def test_choices_of_answers_that_are_not_trained_are_refused():
    formatter = small_formatter("sentencepiece", train_roles=("user",))
    with pytest.raises(UserError, match="^f:1: field 'choices': format.train_roles does not name"):
        formatter.encode(parse_record(CHOICES_AFTER_A_ROUND, "f:1"))


@pytest.mark.parametrize(
    ("architecture", "template"),
    [("decoder", "chatml"), ("decoder", UNSTABLE), ("encoder_decoder", "chatml")],
    ids=["decoder", "unstable", "encoder_decoder"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_records_encoded_together_equal_records_encoded_alone(kind, architecture, template):
    """Records that are dropped, cut, ranked or plain, and the first error, come in their order."""
    records = conversations(5, 60, tools=False)
    asked, answer = Message("user", "Which?"), Message("assistant", "b")
    records[3:3] = [
        Record((asked, answer), choices=("a", "b"), text_to_text=True, where="ranked"),
        Record((asked, dataclasses.replace(answer, weight=0.0)), where="untrained"),
        Record((asked, answer), references=("c",), where="referenced"),
    ]
    options = {"over_length": "truncate-prompt", "template": template}
    if template == UNSTABLE:  # It does not write the answers of earlier turns.
        options["unwritten"] = "leave-out"
    row = 60 if architecture == "decoder" else 20
    formatter = small_formatter(kind, architecture=architecture, length=row, **options)

    def comparable(made):
        if isinstance(made, Dropped):
            return made.reason
        return [dataclasses.astuple(example) for example in made]

    def together(records):
        return map(comparable, formatter.encode_each(records))

    expected = [comparable(formatter.encode(record)) for record in records]
    found = [*together(records)]
    assert {"too_long", "nothing_trained"} <= {x for x in expected if isinstance(x, str)}
    assert any(not isinstance(x, str) and x[0][6] for x in expected)  # One is truncated.
    np.testing.assert_equal(found, expected)
    if template == UNSTABLE:
        return  # It takes every record.
    wrong = Record((asked, dataclasses.replace(answer, reasoning_content="b")), where="thought")
    stream = together([*records[:8], wrong, *records])
    np.testing.assert_equal([next(stream) for _ in range(8)], expected[:8])
    with pytest.raises(UserError, match="^thought: "):
        next(stream)
