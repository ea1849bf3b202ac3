"""Pairs of a chosen and a rejected answer: accepted rows, and both sides as one example."""

import dataclasses

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.text.dropped import NOTHING_TRAINED, TOO_LONG
from ift_jax.text.pairs import IDENTICAL
from ift_jax.text.records import Message
from ift_jax.text.rows import canonical
from ift_jax.text.rows.parse_record import RowOptions, parse_record
from tests.text.formatters import small_formatter

USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "yes"}
BAD = {"role": "assistant", "content": "no, no"}
PREFERENCE = RowOptions("preference")
EXPECTED = (Message("user", "q"), Message("assistant", "yes"))


def parse(**fields):
    return parse_record(fields, "f:1", options=PREFERENCE)


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        # TRL: explicit and implicit prompts, as texts and as messages.
        ({"prompt": "q", "chosen": "yes", "rejected": "no, no"}, ()),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, ()),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, ()),
        # UltraFeedback and Tülu 3: the prompt is there twice, and scores and sources beside it.
        (
            {
                "prompt": "q",
                "prompt_id": "17",
                "chosen": [USER, GOOD],
                "rejected": [USER, BAD],
                "messages": [USER, GOOD],
                "score_chosen": 8.0,
                "score_rejected": 3.5,
            },
            ("messages", "prompt_id", "score_chosen", "score_rejected"),
        ),
        # Orca's pairs, and LLaMA-Factory's two layouts.
        ({"question": "q", "chosen": "yes", "rejected": "no, no"}, ()),
        ({"instruction": "q", "input": "", "chosen": "yes", "rejected": "no, no"}, ()),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "yes"},
                "rejected": {"from": "gpt", "value": "no, no"},
            },
            (),
        ),
        # A prompt that is not what the sides begin with stays unread, and is counted.
        ({"prompt": "another", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, ("prompt",)),
    ],
)
def test_rows_of_several_systems_are_the_same_pair(row, unread):
    record = parse(**row)
    assert record.messages == EXPECTED
    assert record.rejected == (EXPECTED[0], Message("assistant", "no, no"))
    assert record.unread == unread and not record.text_to_text


def test_only_what_follows_the_prompt_is_trained():
    history = [USER, {"role": "assistant", "content": "earlier"}, USER]
    for fields in (
        {"chosen": [*history, GOOD], "rejected": [*history, BAD]},
        {"prompt": history, "chosen": [GOOD], "rejected": [BAD]},
    ):
        record = parse(system="s", **fields)
        for side in (record.messages, record.rejected):
            assert [m.role for m in side] == ["system", "user", "assistant", "user", "assistant"]
            assert [m.weight for m in side] == [None, None, 0.0, None, None]


def test_sides_that_begin_with_the_same_answer_keep_their_prompt():
    """It was lost, and the pair dropped, because it then began with an assistant."""
    more = {"role": "user", "content": "more"}
    for prompt in ([USER], "q"):
        record = parse(prompt=prompt, chosen=[GOOD, USER, GOOD], rejected=[GOOD, USER, BAD])
        for side, last in ((record.messages, GOOD), (record.rejected, BAD)):
            expected = [USER, GOOD, USER, last]
            assert [(m.role, m.content) for m in side] == [
                (turn["role"], turn["content"]) for turn in expected
            ]
            assert [m.weight for m in side] == [None] * 4  # As in TRL, a completion is trained.
        assert record.unread == ()
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}
    result = {"role": "tool", "content": "7"}
    record = parse(prompt=[USER, more], chosen=[call, result, GOOD], rejected=[call, result, BAD])
    assert [m.role for m in record.rejected] == ["user", "user", "assistant", "tool", "assistant"]


def test_a_pair_survives_the_way_through_seqio():
    record = parse(prompt=[USER, GOOD, USER], chosen=[GOOD], rejected=[BAD], tools=[])
    again = parse_record(canonical.chat_fields(record), "f:1")
    assert dataclasses.replace(again, where="") == dataclasses.replace(record, where="")


def test_without_a_preference_run_messages_are_what_a_row_is():
    row = {"messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    record = parse_record(row, "f:1")
    assert record.rejected == () and record.unread == ("chosen", "rejected")


def test_a_prompt_alone_has_neither_answer():
    record = parse_record(
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "f:1", prompt_only=True
    )
    assert record.messages == (Message("user", "q"),) and record.rejected == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a"}, r"^f:1: field 'rejected' is missing"),
        ({"chosen": "a", "rejected": "b"}, r"^f:1: field 'rejected': expected the messages that"),
        (
            {"chosen": [USER, GOOD], "rejected": [{**USER, "content": "x"}, BAD]},
            r"'rejected': expected the messages that field 'chosen' begins with, or a field",
        ),
        (
            {"chosen": [USER, GOOD], "rejected": [USER, USER]},
            r"^f:1: field 'rejected': expected an assistant's answer after the prompt, found none",
        ),
        ({"prompt": "q", "chosen": "a", "rejected": 3}, r"'rejected': expected a list of messages"),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "weight": 0.5},
            r"^f:1: row: expected no weight, because a pair counts once; found 0.5",
        ),
    ],
)
def test_errors_name_the_field(row, message):
    with pytest.raises(UserError, match=message):
        parse(**row)


@pytest.fixture(scope="module")
def formatter():
    return small_formatter("sentencepiece")


def alone(formatter, messages):
    (example,) = formatter.encode(parse_record({"messages": list(messages)}, "f:1"))
    return example


def test_a_pair_is_one_example_of_what_each_side_is_alone(formatter):
    (pair,) = formatter.encode(parse(chosen=[USER, GOOD], rejected=[USER, BAD]))
    chosen, rejected = alone(formatter, [USER, GOOD]), alone(formatter, [USER, BAD])
    assert pair.rejected_start == len(chosen.tokens)
    np.testing.assert_array_equal(pair.tokens, np.append(chosen.tokens, rejected.tokens))
    np.testing.assert_array_equal(pair.weights, np.append(chosen.weights, rejected.weights))
    assert pair.prompt_length == chosen.prompt_length and pair.references == ("yes",)
    # The batch encoder of preparation gives the same.
    record = parse(chosen=[USER, GOOD], rejected=[USER, BAD])
    ((again,),) = formatter.encode_each([record])
    np.testing.assert_array_equal(again.tokens, pair.tokens)


def test_pairs_that_teach_nothing_are_dropped_and_counted(formatter):
    assert formatter.encode(parse(chosen=[USER, GOOD], rejected=[USER, GOOD])) == IDENTICAL
    masked = {**BAD, "weight": 0}
    assert formatter.encode(parse(chosen=[USER, GOOD], rejected=[USER, masked])) == NOTHING_TRAINED


def test_a_pair_that_is_too_long_is_dropped_cut_or_an_error(formatter):
    long = {"role": "user", "content": "one two three four five six seven eight nine ten"}
    record = parse(chosen=[long, GOOD], rejected=[long, BAD])
    (whole,) = formatter.encode(record)
    size = len(whole.tokens)

    def encode(over_length, max_length):
        limits = dataclasses.replace(
            formatter.limits, max_length=max_length, over_length=over_length
        )
        return formatter.with_limits(limits).encode(record)

    (fits,) = encode("error", size)
    assert len(fits.tokens) == size
    dropped = encode("drop", size - 1)
    assert dropped == TOO_LONG and (dropped.field, dropped.length) == ("max_length", size)
    with pytest.raises(
        UserError, match=rf"f:1: .* have {size} tokens; expected at most .* {size - 1}"
    ):
        encode("error", size - 1)
    (cut,) = encode("truncate-prompt", size - 9)
    assert len(cut.tokens) <= size - 9 and cut.truncated >= 9
    # Both sides keep the same prompt, and all of their answers.
    sides = cut.tokens[: cut.rejected_start], cut.tokens[cut.rejected_start :]
    weights = cut.weights[: cut.rejected_start], cut.weights[cut.rejected_start :]
    prompts = [s[: int(np.argmax(w > 0))].tolist() for s, w in zip(sides, weights, strict=True)]
    assert prompts[0] == prompts[1]
    assert cut.weights.sum() == whole.weights.sum()
