"""SeqIO tasks that tokenize themselves."""

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.preparation.tokenized_tasks import encode_tokenized
from ift_jax.text.dropped import Dropped
from tests.text.formatters import make_formatter
from tests.text.small_tokenizers import sentencepiece_tokenizer

TOKENIZER = sentencepiece_tokenizer()
INPUTS = [*TOKENIZER.encode("Anna counts"), TOKENIZER.eos_id]
TARGETS = [*TOKENIZER.encode("apples"), TOKENIZER.eos_id]


def encode(fields, architecture="decoder", **options):
    formatter = make_formatter(TOKENIZER, architecture, **options)
    arrays = {name: np.array(value) for name, value in fields.items()}
    made = encode_tokenized(arrays, formatter, "task:5")
    if isinstance(made, Dropped):
        return made
    (example,) = made
    return example


def test_decoder_joins_inputs_and_targets():
    example = encode({"inputs": INPUTS, "targets": TARGETS})
    assert example.tokens.tolist() == INPUTS + TARGETS and example.tokens.dtype == np.int32
    assert example.weights.tolist() == [0.0] * len(INPUTS) + [1.0] * len(TARGETS)
    assert example.prompt_length == example.prefix_length == len(INPUTS)
    assert example.references == ("apples",)


def test_encoder_decoder_keeps_them_apart():
    example = encode({"inputs": INPUTS, "targets": TARGETS}, "encoder_decoder")
    assert example.encoder_tokens.tolist() == INPUTS and example.tokens.tolist() == TARGETS
    assert example.weights.tolist() == [1.0] * len(TARGETS) and example.prompt_length == 0


def test_negative_ids_and_zero_weights_are_not_trained():
    shot, answer = [-i for i in INPUTS], TARGETS
    example = encode({"targets": [*shot, *answer, *shot, *answer]})
    assert example.tokens.tolist() == INPUTS + TARGETS + INPUTS + TARGETS
    expected = ([0.0] * len(INPUTS) + [1.0] * len(TARGETS)) * 2
    assert example.weights.tolist() == expected
    assert example.prefix_length == len(INPUTS)
    assert example.prompt_length == 2 * len(INPUTS) + len(TARGETS)
    assert example.references == ("apples",)
    weights = [0.0] * (len(TARGETS) - 2) + [0.5, 2.0]
    example = encode({"inputs": INPUTS, "targets": TARGETS, "targets_loss_weights": weights})
    assert example.weights.tolist() == [0.0] * len(INPUTS) + weights
    padded = encode({"inputs": INPUTS, "targets": [*TARGETS, 0, 0]}, "encoder_decoder")
    assert padded.weights.tolist() == [1.0] * len(TARGETS) + [0.0, 0.0]


def test_a_decoder_without_inputs_begins_untrained():
    example = encode({"targets": TARGETS})
    assert example.tokens.tolist() == [TOKENIZER.bos_id, *TARGETS]
    assert example.weights.tolist() == [0.0] + [1.0] * len(TARGETS)
    assert example.prompt_length == 1


def test_over_length():
    fields = {"inputs": INPUTS, "targets": TARGETS}
    size = len(INPUTS) + len(TARGETS)
    assert encode(fields, length=size - 1) == Dropped("too_long")
    cut = encode(fields, length=size - 2, over_length="truncate-prompt")
    assert cut.tokens.tolist() == INPUTS[:-3] + INPUTS[-1:] + TARGETS and cut.truncated == 2
    assert cut.weights.tolist() == [0.0] * (len(INPUTS) - 2) + [1.0] * len(TARGETS)
    answer_alone = {"length": len(TARGETS), "over_length": "truncate-prompt"}
    assert encode(fields, **answer_alone) == Dropped("too_long")
    without_eos = {"inputs": INPUTS[:-1], "targets": TARGETS}
    assert encode(without_eos, **answer_alone) == Dropped("too_long")
    with pytest.raises(UserError, match="task:5: .*data.max_length"):
        encode(fields, length=size - 1, over_length="error")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"inputs": INPUTS}, "field 'targets': expected a list of token ids, found nothing"),
        ({"targets": [0.5]}, "field 'targets': expected a list of token ids, found float64"),
        ({"targets": [TOKENIZER.vocab_size]}, "field 'targets': expected ids below"),
        ({"targets": TARGETS, "inputs": [[1]]}, "field 'inputs': expected a list of token ids"),
        ({"targets": [5, 6], "targets_loss_weights": [1.0]}, "'targets_loss_weights': expected 2"),
        ({"targets": [5], "targets_loss_weights": [-1.0]}, "'targets_loss_weights': expected 1"),
    ],
)
def test_bad_fields_are_named(fields, words):
    with pytest.raises(UserError) as raised:
        encode(fields)
    assert str(raised.value).startswith("task:5: ") and words in str(raised.value)


@pytest.mark.parametrize("targets", [[-5, -6], [], [0, 0]])
def test_nothing_trained_is_dropped(targets):
    fields = {"inputs": INPUTS, "targets": np.array(targets, np.int32)}
    assert encode(fields) == Dropped("nothing_trained")
