"""Training a SentencePiece model with byte fallback (free of TensorFlow)."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.sentencepiece import SPACE_MARK


def train_sentencepiece(
    texts: Iterable[str], *, vocab_size: int, control: Sequence[str] = ()
) -> bytes:
    """Trains a BPE model with byte fallback (Kudo and Richardson 2018) whose round trip is exact.

    Text is left as it is: no normalisation, no space in front, all whitespace kept. Lines
    are learnt from one by one, so no piece crosses a newline (a newline is its byte);
    digits are pieces of their own. One thread: the same texts give the same bytes.

    `texts` come in a fixed order; `vocab_size` counts all pieces. Ids: pad 0, eos 1, bos 2,
    unk 3, then the `control` strings, each one id that text never gives, then the 256 bytes, then
    what was learnt. Returned are the bytes of a `.model` file.

    Raises:
        UserError: the vocabulary is too small for bytes and characters, or larger than the
            text can fill (the message gives the bound).
    """
    control = [c for c in dict.fromkeys(control) if c not in ("<pad>", "</s>", "<s>", "<unk>")]
    failures: list[Exception] = []

    def lines() -> Iterator[str]:
        try:
            for text in texts:
                for line in text.replace(SPACE_MARK, " ").replace("\0", "").split("\n"):
                    if line:
                        yield line
        except Exception as error:
            failures.append(error)  # SentencePiece would turn it into a RuntimeError.
            raise

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(),
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
        raise UserError(
            f"tokenizer.train_vocab_size = {vocab_size}: {_expected(str(error), len(control))}"
        ) from error
    return model.getvalue()


def _expected(message: str, n_control: int) -> str:
    """What SentencePiece's trainer would have accepted, from its error."""
    if bound := re.search(r"too high.*value <= (\d+)", message):
        return f"expected at most {bound[1]}: the text gives no more pieces"
    if bound := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return f"expected at least {bound[1]}: bytes, characters and control strings"
    reason = " ".join(message.split())
    return f"expected text, and at least {4 + n_control + 256} pieces ({reason})"
