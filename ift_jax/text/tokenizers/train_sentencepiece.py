"""Training a SentencePiece model with byte fallback."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.sentencepiece_words import SPACE_MARK

_NAMED = ("<pad>", "</s>", "<s>", "<unk>")
_N_NAMED, _N_BYTES = len(_NAMED), 256


class VocabularyTooLarge(UserError):
    """A text does not give as many pieces as were asked for.

    Attributes:
        largest: The largest vocabulary that it gives.
    """

    def __init__(self, message: str, largest: int) -> None:
        super().__init__(message)
        self.largest = largest


def train_sentencepiece(
    texts: Iterable[str], *, vocab_size: int, control: Sequence[str] = ()
) -> bytes:
    """Train a BPE model with byte fallback (Kudo and Richardson 2018) and an exact round trip.

    Text is left as it is: it is not normalized, gets no space in front, and keeps all white space.
    The model learns from single lines, so no piece crosses a newline (a newline is its byte).
    Digits are pieces of their own. Training takes one thread, so that the same texts give the same
    bytes.

    Args:
        texts: The texts, in a fixed order.
        vocab_size: The number of all pieces.
        control: Control strings; each is one id, which no text is encoded to.

    Returns:
        The bytes of a `.model` file. Its ids are pad 0, eos 1, bos 2, unk 3, then the control
        strings, the 256 bytes, and the pieces that were learned.

    Raises:
        VocabularyTooLarge: The text does not give so many pieces.
        UserError: The vocabulary is too small for bytes and characters, or a text raises it.
    """
    control = [string for string in dict.fromkeys(control) if string not in _NAMED]
    failures: list[Exception] = []
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts, failures),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            control_symbols=control,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise _size_error(str(error), vocab_size, len(control)) from error
    return model.getvalue()


def _lines(texts: Iterable[str], failures: list[Exception]) -> Iterator[str]:
    """Yield the lines of texts, and keep what the texts raise: SentencePiece would hide it."""
    try:
        for text in texts:
            for line in text.replace(SPACE_MARK, " ").replace("\0", "").split("\n"):
                if line:
                    yield line
    except Exception as error:
        failures.append(error)
        raise


def _size_error(message: str, vocab_size: int, n_control: int) -> UserError:
    """Return the error that names the sizes which SentencePiece's trainer would have accepted.

    Args:
        message: The trainer's own error message.
        vocab_size: The size that was asked for.
        n_control: The number of control strings.
    """
    where = f"tokenizer.train_vocab_size = {vocab_size}"
    if bound := re.search(r"too high.*value <= (\d+)", message):
        expected = f"expected at most {bound[1]}: the text gives no more pieces"
        return VocabularyTooLarge(f"{where}: {expected}", int(bound[1]))
    if bound := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        expected = f"expected at least {bound[1]}: bytes, characters and control strings"
        return UserError(f"{where}: {expected}")
    reason = " ".join(message.split())
    at_least = _N_NAMED + n_control + _N_BYTES
    return UserError(f"{where}: expected text, and at least {at_least} pieces ({reason})")
