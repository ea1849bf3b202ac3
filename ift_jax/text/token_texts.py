"""The text that each token of a sequence contributes."""

from collections.abc import Sequence

from ift_jax.text.tokenizers.base import Tokenizer

_INCOMPLETE = "\ufffd"  # What a decoder writes for bytes that are not a whole character.
# Tokens before, with which a token is decoded: some write their space by what precedes.
_WINDOW = 8


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of each token; together they are the text of the sequence.

    A character that spans several tokens is in the text of its last one; the others have none.

    Args:
        tokenizer: The tokenizer.
        ids: The tokens; control tokens are shown.
    """
    texts: list[str] = []
    done = 0  # Tokens whose text is complete.
    for end in range(1, len(ids) + 1):
        start = max(done - _WINDOW, 0)
        before = tokenizer.decode(ids[start:done], keep_special=True)
        now = tokenizer.decode(ids[start:end], keep_special=True)
        is_last = end == len(ids)
        if now.endswith(_INCOMPLETE) and not is_last and end - done < _WINDOW:
            texts.append("")
            continue
        texts.append(now[len(before) :])
        done = end
    return texts
