"""Records that are longer than a limit are dropped, cut in their prompts, or an error."""

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.dropped import TOO_LONG, Dropped
from ift_jax.text.records import Message, Record
from tests.text import chat_tokenizers as tok
from tests.text import small_tokenizers as small
from tests.text.conversations import conversations, text_record
from tests.text.formatters import make_formatter, named_formatter, small_formatter
from tests.text.small_tokenizers import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_over_length_never_touches_an_answer_or_a_header(kind):
    whole_formatter = small_formatter(kind)
    cut_some = dropped = 0
    for record in conversations(4, 120, tools=True):
        made = whole_formatter.encode(record)
        if isinstance(made, Dropped):
            continue
        (whole,) = made
        answers = whole.tokens[whole.weights > 0].tolist()
        for room in (whole.tokens.size - 1, whole.tokens.size // 2, 3):
            assert small_formatter(kind, length=room).encode(record) == TOO_LONG
            with pytest.raises(UserError, match="generated:.*expected at most data.max_length ="):
                small_formatter(kind, length=room, over_length="error").encode(record)
            formatter = small_formatter(kind, length=room, over_length="truncate-prompt")
            free = sum(
                len(formatter.tokenizer.encode(m.content, "text"))
                for m in record.messages
                if m.role != "assistant" or m.weight == 0
            )
            if free < whole.tokens.size - room:
                assert formatter.encode(record) == TOO_LONG
                dropped += 1
                continue
            (cut,) = formatter.encode(record)
            assert room - 8 <= cut.tokens.size <= room
            assert cut.truncated == whole.tokens.size - cut.tokens.size
            assert cut.tokens[cut.weights > 0].tolist() == answers
            for token in formatter.tokenizer.special_tokens.values():
                assert np.sum(cut.tokens == token) == np.sum(whole.tokens == token)
            cut_some += 1
        (same,) = small_formatter(kind, length=whole.tokens.size, over_length="error").encode(
            record
        )
        assert same.tokens.tolist() == whole.tokens.tolist() and same.truncated == 0
    assert cut_some > 50 and dropped > 50


def test_the_longest_text_loses_its_end():
    long, short, answer = "count " * 30, "sort it", "done now"
    record = Record((Message("system", short), Message("user", long), Message("assistant", answer)))
    (whole,) = small_formatter("sentencepiece").encode(record)
    formatter = small_formatter(
        "sentencepiece", length=whole.tokens.size - 10, over_length="truncate-prompt"
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
def test_inputs_and_targets_have_their_own_limits(policy):
    def formatter(inputs_length, targets_length):
        return small_formatter(
            "sentencepiece",
            "encoder_decoder",
            inputs_length=inputs_length,
            targets_length=targets_length,
            over_length=policy,
        )

    record = text_record("count " * 10, "apples and files")
    (whole,) = formatter(500, 500).encode(record)
    n, m = whole.encoder_tokens.size, whole.tokens.size
    assert formatter(n, m).encode(record)[0].truncated == 0
    # An answer is never cut.
    assert formatter(n, m - 1).encode(record) == TOO_LONG
    if policy == "drop":
        assert formatter(n - 1, m).encode(record) == TOO_LONG
    else:
        (cut,) = formatter(n - 3, m).encode(record)
        expected = [*whole.encoder_tokens[: n - 4].tolist(), formatter(n, m).tokenizer.eos_id]
        assert cut.encoder_tokens.tolist() == expected and cut.truncated == 3


def test_a_record_whose_prompt_would_be_cut_to_nothing_is_dropped():
    tokenizer = small.t5_like_tokenizer()
    assert tokenizer.encode("\n") == []  # So a plain prompt consists of the inputs alone.
    answer = "apples"
    size = len(tokenizer.encode(answer)) + 1
    prompt = tokenizer.encode("Anna counts")
    # The first piece may be a space, which decodes to nothing.
    least = next(n for n in range(1, len(prompt)) if tokenizer.decode(prompt[:n]))

    def encode(room):
        formatter = make_formatter(
            tokenizer, length=room, over_length="truncate-prompt", template="plain"
        )
        return formatter.encode(text_record("Anna counts", answer))

    (cut,) = encode(size + least)
    assert cut.weights.tolist() == [0.0] * least + [1.0] * size
    assert cut.tokens[:least].tolist() == prompt[:least]
    assert encode(size + least - 1) == TOO_LONG


@pytest.mark.parametrize("name", ["llama3", "gemma", "olmo2", "chatml"])
def test_a_long_prompt_is_cut_although_the_template_writes_bos(name):
    tokenizer = tok.ours("byte_level", NAMES[name])
    whole = named_formatter(name, "byte_level")
    record = Record((Message("user", "word " * 60 + "end"), Message("assistant", "Yes")), where="r")
    (example,) = whole.encode(record)
    cut = make_formatter(
        tokenizer, length=example.tokens.size - 20, over_length="truncate-prompt", template=name
    )
    (shorter,) = cut.encode(record)
    assert shorter.truncated == example.tokens.size - shorter.tokens.size >= 20
    text = tokenizer.decode(shorter.tokens.tolist(), keep_special=True)
    assert "word word" in text and "word end" not in text
    trained = example.tokens[example.weights > 0].tolist()
    assert shorter.tokens[shorter.weights > 0].tolist() == trained
