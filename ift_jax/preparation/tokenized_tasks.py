"""SeqIO tasks that tokenise themselves: their ids become examples as they are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.encode_chunks import flat
from ift_jax.text.examples import Dropped, Encoded, ExampleFormatter
from ift_jax.text.records import parse_references
from ift_jax.text.tokenizers.base import Tokenizer


def encode_tokenised(
    fields: Mapping[str, Any], formatter: ExampleFormatter, where: str
) -> list[Encoded] | Dropped:
    """The one example of a SeqIO task's record that is tokenized already.

    A decoder gets inputs and targets joined as they are (whatever EOS the task put in).
    Untrained are the inputs, padding, ids that are negative (FLAN's way to say so; Longpre et
    al. 2023), and targets whose `targets_loss_weights` is 0.

    `fields` hold `targets` and, optionally, `inputs`, integer ids; `targets_loss_weights`, as many
    floats as targets; `references`, as in a text record. An error names `where`.

    Raises:
        UserError: names the field and what was expected.
    """
    tokenizer, decoder = formatter.tokenizer, formatter.architecture == "decoder"
    inputs = np.abs(_ids(fields, "inputs", tokenizer, where)).tolist()
    signed = _ids(fields, "targets", tokenizer, where)
    weights = (signed > 0).astype(np.float32)  # SeqIO pads with 0.
    if "targets_loss_weights" in fields:
        given = np.asarray(fields["targets_loss_weights"], np.float32)
        if given.shape != signed.shape or not np.all(np.isfinite(given) & (given >= 0)):
            raise UserError(
                f"{where}: field 'targets_loss_weights': expected {signed.size} numbers of at"
                f" least 0, one for each target; found {given.size}"
            )
        weights *= given
    trained = np.flatnonzero(weights)
    if not trained.size:
        return Dropped("nothing_trained")
    gaps = np.flatnonzero(np.diff(trained) > 1)
    answer = int(trained[gaps[-1] + 1] if gaps.size else trained[0])
    targets = np.abs(signed)
    text = tokenizer.decode(targets[answer:][weights[answer:] > 0].tolist())
    keep = inputs[-1:] if inputs[-1:] == [tokenizer.eos_id] else []  # Never cut off.
    parts = [inputs[: len(inputs) - len(keep)], keep]
    if decoder:
        if not inputs and weights[0] > 0:
            parts[1] = formatter.guard
        fitted = formatter.fit(
            [*parts, targets.tolist()], (True, False, False), "max_length", where
        )
        if isinstance(fitted, Dropped):
            return fitted
        pieces, truncated = fitted
        before = len(pieces[0]) + len(pieces[1])
        if not before and weights[0] > 0:
            return Dropped("too_long")
        weights = np.concatenate([np.zeros(before, np.float32), weights])
        encoder: list[list[int]] = []
    else:
        whole = formatter.fit([targets.tolist()], (False,), "targets_length", where)
        if isinstance(whole, Dropped):
            return whole
        fitted = formatter.fit(parts, (True, False), "inputs_length", where)
        if isinstance(fitted, Dropped):
            return fitted
        pieces, _ = whole
        encoder, truncated = fitted
        before = 0
    example = Encoded(
        tokens=flat(pieces),
        weights=weights,
        encoder_tokens=flat(encoder),
        prompt_length=before + answer if decoder else 0,
        prefix_length=int(np.argmax(weights > 0)),
        references=tuple(dict.fromkeys((text, *parse_references(fields, where)))),
        truncated=truncated,
        control_strings=0,
    )
    return [example]


def _ids(
    fields: Mapping[str, Any], field: str, tokenizer: Tokenizer, where: str
) -> npt.NDArray[np.int32]:
    ids = np.asarray(fields.get(field, () if field == "inputs" else None))
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise UserError(
            f"{where}: field {field!r}: expected a list of token ids, found"
            f" {'nothing' if ids.ndim == 0 else f'{ids.dtype} of shape {ids.shape}'}"
        )
    if ids.size and np.abs(ids).max() >= tokenizer.vocab_size:
        raise UserError(
            f"{where}: field {field!r}: expected ids below the tokenizer's {tokenizer.vocab_size},"
            f" found {int(np.abs(ids).max())}"
        )
    return ids.astype(np.int32)
