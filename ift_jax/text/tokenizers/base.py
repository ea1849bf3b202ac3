"""The interface of every tokenizer."""

import abc
from collections.abc import Mapping, Sequence

# More than any vocabulary has. An id beyond it is a mistake, and nothing may be counted up to it.
MOST_TOKENS = 1 << 24


class Tokenizer(abc.ABC):
    """Turns text into token ids and back.

    Attributes:
        vocab_size: One more than the largest id.
        base_vocab_size: `vocab_size` before tokens were added to what was given.
        pad_id: Never equal to `eos_id`, so that padding can be told from an ending.
        eos_id: The id that ends a text.
        bos_id: The id that begins a text, or None if the tokenizer has none.
        adds_bos: Whether the tokenizer, asked for its special tokens, puts BOS before a text.
        special_tokens: Control strings and their ids.
        special_tokens_map: Special tokens by role, such as `{"eos_token": "</s>"}`; the name is
            Hugging Face's.
        strips: For each control string that swallows white space beside it: whether it does so at
            its left and at its right.
        chat_template: The Jinja source that came with the tokenizer; empty if none did.
        files: Contents by file name; `load_tokenizer` reads the same tokenizer from a folder of
            them.
        fingerprint: SHA-256 (hex) of the bytes and options that define the tokenizer.
    """

    vocab_size: int
    base_vocab_size: int
    pad_id: int
    eos_id: int
    bos_id: int | None
    adds_bos: bool
    special_tokens: Mapping[str, int]
    special_tokens_map: Mapping[str, str]
    strips: Mapping[str, tuple[bool, bool]]
    chat_template: str
    files: Mapping[str, bytes]
    fingerprint: str

    @abc.abstractmethod
    def encode(self, text: str, place: str = "start") -> list[int]:
        """Encode ordinary text: add no BOS or EOS, and spell control strings out.

        Args:
            text: The text.
            place: Where the text stands: at the "start" of the input, right after a "control"
                token, or in the middle of "text". At the first two, some tokenizers put a space
                before it.
        """

    def place_after(self, control: str) -> str:
        """Return the place of a text right after a control token, as `encode` takes it.

        It is "control", or "text" where the token does not begin a text anew.
        """
        return "control"

    @abc.abstractmethod
    def encode_with_controls(self, text: str) -> list[int]:
        """Encode text in which control strings stand for their ids."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Decode ids; those outside the vocabulary are ignored, as a model's may be larger.

        Args:
            ids: Token ids.
            keep_special: Whether to show control tokens, padding among them, or to leave them out.
        """


def template_file(chat_template: str) -> dict[str, bytes]:
    """Return the file that keeps a chat template beside a tokenizer; none for an empty one."""
    return {"chat_template.jinja": chat_template.encode()} if chat_template else {}
