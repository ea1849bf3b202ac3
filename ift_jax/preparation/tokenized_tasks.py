"""SeqIO tasks that tokenize themselves: their ids become examples as they are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import seqio
import tensorflow as tf

from ift_jax.errors import UserError
from ift_jax.text.dropped import NOTHING_TRAINED, Dropped, too_long
from ift_jax.text.encode_chunks import join_pieces
from ift_jax.text.encoded import Encoded
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.parse_record import parse_references
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer


def check_vocabulary(task: seqio.Task, tokenizer: Tokenizer) -> None:
    """Check that a task tokenizes itself with the run's own tokenizer.

    Raises:
        UserError: The vocabulary of a feature is another one.
    """
    for name in sorted({"inputs", "targets"} & set(task.output_features)):
        vocabulary = task.output_features[name].vocabulary
        found = type(vocabulary).__name__
        if isinstance(vocabulary, seqio.SentencePieceVocabulary):
            file = vocabulary.sentencepiece_model_file
            with tf.io.gfile.GFile(file, "rb") as model:
                theirs = SentencePieceTokenizer(model.read(), extra_ids=vocabulary.extra_ids)
            ours = tokenizer if isinstance(tokenizer, SentencePieceTokenizer) else None
            # Tokens that the run adds come after theirs.
            if ours is not None and _model_and_extra_ids(theirs) == _model_and_extra_ids(ours):
                continue
            found = f"{file} with {vocabulary.extra_ids} extra ids"
        raise UserError(
            f"task {task.name!r}: its feature {name!r} is tokenized already, with {found}; "
            "expected the run's own tokenizer (set tokenizer.path and tokenizer.extra_ids to "
            "that vocabulary, or let the task hand on strings)"
        )


def _model_and_extra_ids(tokenizer: SentencePieceTokenizer) -> tuple[bytes, int]:
    return tokenizer.files["tokenizer.model"], tokenizer.extra_ids


def encode_tokenized(
    fields: Mapping[str, Any], formatter: ExampleFormatter, where: str
) -> list[Encoded] | Dropped:
    """Return the one example of a record that is tokenized already.

    The tokens are those of the task, with whatever EOS it put in; a decoder gets inputs and targets
    joined. Not trained are the inputs, padding, negative ids (by which FLAN says so; Longpre et al.
    2023), and targets whose `targets_loss_weights` is 0.

    Args:
        fields: `targets` and, optionally, `inputs`, both lists of integer ids;
            `targets_loss_weights`, a number for each target; `references`, as in a text record.
        formatter: The run's format.
        where: What an error calls the record.

    Raises:
        UserError: A field is not what is expected; names the field.
    """
    tokenizer = formatter.tokenizer
    inputs = np.abs(_ids(fields, "inputs", tokenizer, where)).tolist()
    signed = _ids(fields, "targets", tokenizer, where)
    weights = _loss_weights(fields, signed, where)
    trained = np.flatnonzero(weights)
    if not trained.size:
        return NOTHING_TRAINED
    targets = np.abs(signed)
    # The answer starts where the last run of trained targets does.
    gaps = np.flatnonzero(np.diff(trained) > 1)
    answer = int(trained[gaps[-1] + 1] if gaps.size else trained[0])
    text = tokenizer.decode(targets[answer:][weights[answer:] > 0].tolist())
    references = tuple(dict.fromkeys((text, *parse_references(fields, where))))
    # An EOS at the end of the inputs is never cut off.
    eos = inputs[-1:] if inputs[-1:] == [tokenizer.eos_id] else []
    prompt = [inputs[: len(inputs) - len(eos)], eos]
    if formatter.architecture == "decoder":
        return _decoder_example(
            prompt, targets, weights, answer, references, formatter=formatter, where=where
        )
    return _encoder_decoder_example(
        prompt, targets, weights, references, formatter=formatter, where=where
    )


def _decoder_example(
    prompt: list[list[int]],
    targets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    answer: int,
    references: tuple[str, ...],
    *,
    formatter: ExampleFormatter,
    where: str,
) -> list[Encoded] | Dropped:
    """Join the prompt (inputs, which may be cut, and EOS) with the targets."""
    inputs, eos = prompt
    if not inputs and not eos and weights[0] > 0:
        eos = formatter.empty_prompt  # The first token of a row cannot be trained.
    fitted = formatter.fit(
        [inputs, eos, targets.tolist()], (True, False, False), "max_length", where
    )
    if isinstance(fitted, Dropped):
        return fitted
    pieces, truncated = fitted
    before = len(pieces[0]) + len(pieces[1])
    if not before and weights[0] > 0:
        return too_long("max_length", len(inputs) + len(eos) + len(targets))
    weights = np.concatenate([np.zeros(before, np.float32), weights])
    example = Encoded(
        tokens=join_pieces(pieces),
        weights=weights,
        encoder_tokens=join_pieces([]),
        prompt_length=before + answer,
        prefix_length=int(np.argmax(weights > 0)),
        references=references,
        truncated=truncated,
        control_strings=0,
    )
    return [example]


def _encoder_decoder_example(
    prompt: list[list[int]],
    targets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    references: tuple[str, ...],
    *,
    formatter: ExampleFormatter,
    where: str,
) -> list[Encoded] | Dropped:
    fitted_targets = formatter.fit([targets.tolist()], (False,), "targets_length", where)
    if isinstance(fitted_targets, Dropped):
        return fitted_targets
    fitted_inputs = formatter.fit(prompt, (True, False), "inputs_length", where)
    if isinstance(fitted_inputs, Dropped):
        return fitted_inputs
    encoder_pieces, truncated = fitted_inputs
    example = Encoded(
        tokens=targets,
        weights=weights,
        encoder_tokens=join_pieces(encoder_pieces),
        prompt_length=0,
        prefix_length=int(np.argmax(weights > 0)),
        references=references,
        truncated=truncated,
        control_strings=0,
    )
    return [example]


def _loss_weights(
    fields: Mapping[str, Any], signed: npt.NDArray[np.int32], where: str
) -> npt.NDArray[np.float32]:
    """Return the loss weight of each target; `signed` are the targets with FLAN's signs."""
    weights = (signed > 0).astype(np.float32)  # SeqIO pads with 0.
    if "targets_loss_weights" not in fields:
        return weights
    given = np.asarray(fields["targets_loss_weights"], np.float32)
    if given.shape != signed.shape or not np.all(np.isfinite(given) & (given >= 0)):
        raise UserError(
            f"{where}: field 'targets_loss_weights': expected {signed.size} numbers of at"
            f" least 0, one for each target; found {given.size}"
        )
    return weights * given


def _ids(
    fields: Mapping[str, Any], field: str, tokenizer: Tokenizer, where: str
) -> npt.NDArray[np.int32]:
    """Return a field as int32 ids; inputs may be missing."""
    ids = np.asarray(fields.get(field, () if field == "inputs" else None))
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        found = "nothing" if ids.ndim == 0 else f"{ids.dtype} of shape {ids.shape}"
        raise UserError(f"{where}: field {field!r}: expected a list of token ids, found {found}")
    if ids.size and np.abs(ids).max() >= tokenizer.vocab_size:
        raise UserError(
            f"{where}: field {field!r}: expected ids below the tokenizer's {tokenizer.vocab_size},"
            f" found {int(np.abs(ids).max())}"
        )
    return ids.astype(np.int32)
