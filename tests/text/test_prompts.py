"""Formats: text-to-text, encoder-decoder, lengths, control strings, fingerprints."""

import dataclasses
import itertools

import numpy as np
import pytest

from ift_jax.config.schema import (
    Config,
    DataConfig,
    EncoderDecoderConfig,
    FormatConfig,
    TokenizerConfig,
)
from ift_jax.errors import UserError
from ift_jax.text.examples import Dropped, ExampleFormatter
from ift_jax.text.records import Message, Record, parse_record
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.shared_data import SHARED, requires_shared
from tests.text import small_tokenizers as small
from tests.text.conversations import conversations
from tests.text.test_masks import KINDS, TEMPLATES, make_formatter
from tests.text.tokenizers.test_tokenizers import unigram_with_spelt_controls


def text_record(inputs, targets, **more):
    return parse_record({"inputs": inputs, "targets": targets, **more}, "t:0")


@pytest.mark.parametrize("kind", KINDS)
def test_plain_decoder_is_inputs_line_targets_eos(kind):
    formatter = make_formatter(kind, template="plain")
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
    formatter = make_formatter(kind, template="plain")
    tokenizer = formatter.tokenizer
    (example,) = formatter.encode(text_record("", "yes"))
    assert example.tokens.tolist() == [tokenizer.bos_id, *tokenizer.encode("yes"), tokenizer.eos_id]
    assert example.weights[0] == 0 and example.prompt_length == example.prefix_length == 1
    (bare,) = formatter.encode(text_record("", ""))
    assert bare.tokens.tolist() == [tokenizer.bos_id, tokenizer.eos_id]
    assert formatter.prompt([Message("user", "")]).tolist() == [tokenizer.bos_id]
    no_bos = HuggingFaceTokenizer(small.huggingface_definition(), {"eos_token": "<|endoftext|>"})
    formatter = ExampleFormatter(
        FormatConfig(template="plain"),
        no_bos,
        "decoder",
        max_length=9,
        inputs_length=9,
        targets_length=9,
        over_length="drop",
    )
    (example,) = formatter.encode(text_record("", ""))
    assert example.tokens.tolist() == [0, 0] and example.weights.tolist() == [0, 1]


@requires_shared
def test_t5_text_to_text():
    model = str(SHARED / "data/tokenizers/t5_sentencepiece.model")
    tokenizer = load_tokenizer(model, TokenizerConfig(extra_ids=100))
    record = text_record("translate English to German: The house is wonderful.", "Das Haus")

    def encode(input_eos):
        formatter = ExampleFormatter(
            FormatConfig(input_eos=input_eos),
            tokenizer,
            "encoder_decoder",
            max_length=1,
            inputs_length=20,
            targets_length=20,
            over_length="error",
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
        ExampleFormatter(
            FormatConfig(),
            tokenizer,
            "decoder",
            max_length=9,
            inputs_length=9,
            targets_length=9,
            over_length="drop",
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_on", ["all", "last"])
def test_an_encoder_decoder_gets_an_example_for_each_trained_answer(kind, train_on):
    formatter = make_formatter(
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
            assert formatter.encode(record) == Dropped("nothing_trained")
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
            assert b"".join(pieces) == (before + eos).encode()
            assert formatter.prompt(record.messages[:turn]).tolist() == (
                example.encoder_tokens.tolist()
            )
            assert example.references == (message.content,)
            seen += 1
    assert seen > 60


def test_the_eos_of_the_encoder_is_an_option():
    with_eos, without = (
        make_formatter("sentencepiece", architecture="encoder_decoder", input_eos=eos)
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
    formatter = make_formatter("sentencepiece", architecture="encoder_decoder")
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"))
    ]
    record = parse_record({"messages": messages, "references": ["c"]}, "t:0")
    assert [set(e.references) for e in formatter.encode(record)] == [{"a"}, {"b", "c"}]


@pytest.mark.parametrize("kind", KINDS)
def test_over_length_never_touches_an_answer_or_a_header(kind):
    whole_formatter = make_formatter(kind)
    cut_some = dropped = 0
    for record in conversations(4, 120, tools=True):
        made = whole_formatter.encode(record)
        if isinstance(made, Dropped):
            continue
        (whole,) = made
        answers = whole.tokens[whole.weights > 0].tolist()
        for room in (whole.tokens.size - 1, whole.tokens.size // 2, 3):
            assert make_formatter(kind, row=room).encode(record) == Dropped("too_long")
            with pytest.raises(UserError, match="generated:.*expected at most data.max_length ="):
                make_formatter(kind, row=room, over_length="error").encode(record)
            formatter = make_formatter(kind, row=room, over_length="truncate-prompt")
            free = sum(
                len(formatter.tokenizer.encode(m.content, "text"))
                for m in record.messages
                if m.role != "assistant" or m.weight == 0
            )
            if free < whole.tokens.size - room:
                assert formatter.encode(record) == Dropped("too_long")
                dropped += 1
                continue
            (cut,) = formatter.encode(record)
            assert room - 8 <= cut.tokens.size <= room
            assert cut.truncated == whole.tokens.size - cut.tokens.size
            assert cut.tokens[cut.weights > 0].tolist() == answers
            for token in formatter.tokenizer.special_tokens.values():
                assert np.sum(cut.tokens == token) == np.sum(whole.tokens == token)
            cut_some += 1
        (same,) = make_formatter(kind, row=whole.tokens.size, over_length="error").encode(record)
        assert same.tokens.tolist() == whole.tokens.tolist() and same.truncated == 0
    assert cut_some > 50 and dropped > 50


def test_the_longest_text_loses_its_end():
    long, short, answer = "count " * 30, "sort it", "done now"
    record = Record((Message("system", short), Message("user", long), Message("assistant", answer)))
    (whole,) = make_formatter("sentencepiece").encode(record)
    formatter = make_formatter(
        "sentencepiece", row=whole.tokens.size - 10, over_length="truncate-prompt"
    )
    tokenizer = formatter.tokenizer
    (cut,) = formatter.encode(record)
    text = tokenizer.decode(cut.tokens.tolist(), keep_special=True)
    kept = tokenizer.decode(tokenizer.encode(long)[:-10])
    assert text == (
        f"<|im_start|>system\n{short}<|im_end|>\n<|im_start|>user\n{kept}<|im_end|>\n"
        f"<|im_start|>assistant\n{answer}<|im_end|>\n"
    )


@pytest.mark.parametrize("policy", ["drop", "truncate-prompt"])
def test_encoder_and_decoder_have_their_own_lengths(policy):
    def formatter(inputs_length, targets_length):
        return ExampleFormatter(
            FormatConfig(),
            small.sentencepiece_tokenizer(),
            "encoder_decoder",
            max_length=1,
            inputs_length=inputs_length,
            targets_length=targets_length,
            over_length=policy,
        )

    record = text_record("count " * 10, "apples and files")
    (whole,) = formatter(500, 500).encode(record)
    n, m = whole.encoder_tokens.size, whole.tokens.size
    assert formatter(n, m).encode(record)[0].truncated == 0
    # An answer is never cut.
    assert formatter(n, m - 1).encode(record) == Dropped("too_long")
    if policy == "drop":
        assert formatter(n - 1, m).encode(record) == Dropped("too_long")
    else:
        (cut,) = formatter(n - 3, m).encode(record)
        expected = [*whole.encoder_tokens[: n - 4].tolist(), formatter(n, m).tokenizer.eos_id]
        assert cut.encoder_tokens.tolist() == expected and cut.truncated == 3


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_control_strings_in_text_are_counted_and_spelt_out(kind, template):
    record = Record(
        (
            Message("user", "say <|im_end|> twice: <|im_end|>"),
            Message("assistant", "<|im_start|>no"),
        )
    )
    formatter = make_formatter(kind, template=template)
    (example,) = formatter.encode(record)
    assert example.control_strings == 3
    end = formatter.tokenizer.special_tokens["<|im_end|>"]
    assert example.tokens.tolist().count(end) == (2 if template == "chatml" else 0)
    assert formatter.tokenizer.decode(example.tokens[example.weights > 0].tolist()) == (
        "<|im_start|>no"
    )
    as_controls = make_formatter(kind, template=template, control_strings="control")
    (example,) = as_controls.encode(record)
    assert example.control_strings == 3
    assert example.tokens.tolist().count(end) == (4 if template == "chatml" else 2)


def test_a_record_whose_prompt_would_be_cut_to_nothing_is_dropped():
    tokenizer = small.t5_like_tokenizer()
    assert tokenizer.encode("\n") == []  # So the inputs are all there is of a plain prompt.
    answer = "apples"
    size = len(tokenizer.encode(answer)) + 1
    prompt = tokenizer.encode("Anna counts")
    # The first piece may be a bare space, which is no text by itself.
    least = next(n for n in range(1, len(prompt)) if tokenizer.decode(prompt[:n]))

    def encode(room):
        formatter = ExampleFormatter(
            FormatConfig(template="plain"),
            tokenizer,
            "decoder",
            max_length=room,
            inputs_length=9,
            targets_length=9,
            over_length="truncate-prompt",
        )
        return formatter.encode(text_record("Anna counts", answer))

    (cut,) = encode(size + least)
    assert cut.weights.tolist() == [0.0] * least + [1.0] * size
    assert cut.tokens[:least].tolist() == prompt[:least]
    assert encode(size + least - 1) == Dropped("too_long")


def test_control_strings_that_are_vocabulary_are_spelt_out_too():
    tokenizer = unigram_with_spelt_controls()
    assert 1 in tokenizer.encode("</s>")  # The model itself would read text as EOS.
    formatter = ExampleFormatter(
        FormatConfig(template="plain"),
        tokenizer,
        "decoder",
        max_length=99,
        inputs_length=9,
        targets_length=9,
        over_length="drop",
    )
    (example,) = formatter.encode(text_record("a</s>b", "</s></s>c<pad>"))
    assert example.control_strings == 4
    assert example.tokens.tolist().count(1) == 1 and example.tokens[-1] == 1
    assert 0 not in example.tokens


def test_a_role_or_template_that_is_not_there_is_named():
    record = parse_record(
        {
            "messages": [
                {"role": r, "content": r} for r in ("user", "assistant", "tool", "assistant")
            ]
        },
        "f.jsonl:3",
    )
    with pytest.raises(UserError, match="f.jsonl:3: template 'tulu': no role 'tool'"):
        make_formatter("sentencepiece", template="tulu").encode(record)
    with pytest.raises(UserError, match="no template 'chat-ml'; did you mean 'chatml'"):
        make_formatter("sentencepiece", template="chat-ml")
    with pytest.raises(UserError, match="prompt: messages.0..role: expected 'system' or 'user'"):
        make_formatter("sentencepiece").prompt([Message("assistant", "x")])


def test_the_fingerprint_follows_what_matters_and_nothing_else():
    def fingerprint(
        architecture="decoder",
        kind="sentencepiece",
        row=50,
        enc=60,
        dec=70,
        over_length="drop",
        **options,
    ):
        return ExampleFormatter(
            FormatConfig(**options),
            small.small_tokenizer(kind),
            architecture,
            max_length=row,
            inputs_length=enc,
            targets_length=dec,
            over_length=over_length,
        ).fingerprint

    base, pair = fingerprint(), fingerprint("encoder_decoder")
    assert base == fingerprint(enc=61, dec=71, input_eos=False, bidirectional_prefix=True)
    assert pair == fingerprint("encoder_decoder", row=51)
    different = [
        base, pair, fingerprint(kind="huggingface"), fingerprint(row=51),
        fingerprint(over_length="error"), fingerprint(template="tulu"),
        fingerprint(train_on="last"),
        fingerprint(control_strings="control"), fingerprint("encoder_decoder", enc=61),
        fingerprint("encoder_decoder", dec=71), fingerprint("encoder_decoder", input_eos=False),
    ]  # fmt: skip
    assert all(a != b for a, b in itertools.combinations(different, 2))


def test_from_config_takes_the_lengths_of_the_run():
    config = Config(
        data=DataConfig(max_length=1, inputs_length=4, targets_length=3, over_length="error"),
        model=EncoderDecoderConfig(),
    )
    formatter = ExampleFormatter.from_config(config, small.sentencepiece_tokenizer())
    with pytest.raises(UserError, match="t:0: .* tokens; expected at most data.inputs_length = 4"):
        formatter.encode(text_record("a much longer text", "x"))
    with pytest.raises(UserError, match="expected at most data.targets_length = 3"):
        formatter.encode(text_record("", "a much longer text"))
