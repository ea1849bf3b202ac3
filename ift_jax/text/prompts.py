"""Formats: a record becomes token ids, whether to prompt with or (`tasks/preparation`) to train on.

The rendered text is encoded as `transformers` encodes it: control tokens cut it into chunks, and
each chunk is encoded as a whole. Only where an answer begins or ends, trained or not, a chunk is
cut as well, because generation is prompted with exactly the text before it. So a prompt is a
prefix of what was trained, and a weight belongs to a token without any search in the text.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from ift_jax.config.schema import Config, FormatConfig
from ift_jax.errors import UserError
from ift_jax.text.chat_templates.registry import resolve_template
from ift_jax.text.chat_templates.render import Marked, Renderer
from ift_jax.text.chat_templates.sandbox import CLOSE, OPEN
from ift_jax.text.encode_chunks import ChunkEncoder, Tokens, flat
from ift_jax.text.records import Message, Record, check_roles
from ift_jax.text.tokenizers.base import Tokenizer

_VERSION = 3  # Of the ids that this file gives for the same options; part of the fingerprint.


class Formatter:
    """Turns records into prompts by one format, tokenizer and set of lengths.

    Attributes:
        guard: the id, in a list, that stands in front of an empty prompt.
        stop_ids: the ids that end an answer in generation.
        template_source: the Jinja text of the template, with its options set.
        fingerprint: SHA-256 (hex) of everything that determines the ids of a record.
    """

    _renderer_type: type[Renderer] = Renderer

    def __init__(
        self,
        fmt: FormatConfig,
        tokenizer: Tokenizer,
        architecture: str,
        *,
        max_length: int,
        inputs_length: int,
        targets_length: int,
        over_length: str,
    ):
        """Checks the format against the tokenizer.

        `architecture` is "decoder" or "encoder_decoder". The lengths, in tokens, bound a
        decoder's example, an encoder's input and an encoder-decoder's targets. An example
        that is longer and cannot be kept is dropped where `over_length` is "drop" or
        "truncate-prompt", and a UserError where it is "error".

        Raises:
            UserError: no such template, or (decoder) its stop is not one token.
        """
        self.tokenizer = tokenizer
        self.guard = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
        self.architecture = architecture
        self.over_length = over_length
        self._lengths = {
            "max_length": max_length,
            "inputs_length": inputs_length,
            "targets_length": targets_length,
        }
        self._format = fmt
        template = resolve_template(fmt, tokenizer)
        self.template_source = template.source
        self._renderer = self._renderer_type(template, tokenizer, fmt.control_strings == "text")
        self._tokens = ChunkEncoder(tokenizer).encode
        decoder = architecture == "decoder"
        stop = (self._stop_id,) if decoder else ()
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*stop, tokenizer.eos_id)))
        identity = (
            _VERSION,
            template.source,
            (fmt.train_on, fmt.control_strings, architecture, over_length),
            max_length if decoder else (inputs_length, targets_length, fmt.input_eos),
            tokenizer.fingerprint,
        )
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    @classmethod
    def from_config(cls, config: Config, tokenizer: Tokenizer) -> Self:
        """The formatter of a run."""
        data = config.data
        return cls(
            config.format,
            tokenizer,
            config.model.architecture,
            max_length=data.max_length,
            inputs_length=data.inputs_length,
            targets_length=data.targets_length,
            over_length=data.over_length,
        )

    def prompt(self, record: Record | Sequence[Message]) -> npt.NDArray[np.int32]:
        """What generation is prompted with: a decoder's tokens or an encoder's.

        The record, or messages, ends before an answer. It is never cut: how much fits is for the
        caller to say.

        Raises:
            UserError: messages in a wrong order, or as the template raises it.
        """
        if not isinstance(record, Record):
            record = Record(tuple(record), where="prompt")
            check_roles(record.messages, record.where)
        if self.architecture != "decoder":
            return flat(self._encoder_tokens(record).pieces)
        chat = self._renderer.chat(record)
        prompt = self._tokens(chat, Marked(self._renderer.prompt(chat)))
        return flat(self._guarded(prompt).pieces)

    def _encoder_tokens(self, record: Record) -> Tokens:
        """What the encoder reads of the messages before an answer."""
        if record.text_to_text:
            tokens = self._plain_tokens(record)
        else:
            chat = self._renderer.chat(record)
            _ = self._stop_id  # Refuses a tokenizer in which turns could not be told apart.
            text = self._renderer.text(chat, len(chat.messages))
            tokens = self._tokens(chat, Marked(text))
        if self._format.input_eos:
            tokens.pieces.append([self.tokenizer.eos_id])
        return tokens

    def _plain_tokens(self, record: Record) -> Tokens:
        """The first message's text by itself."""
        chat = self._renderer.chat(record)
        return self._tokens(chat, Marked(chat.messages[0]["content"]))

    def _guarded(self, tokens: Tokens) -> Tokens:
        """The tokens of a decoder, with one in front of an empty prompt.

        The first token of a row is predicted from nothing. Where nothing comes before the
        first answer (plain format, empty inputs), BOS, or EOS where there is none, does.
        This looks at what comes before an answer only, so that prompts stay prefixes.
        """
        if tokens.pieces and tokens.turns[0] == -1:
            return tokens
        return tokens._replace(pieces=[self.guard, *tokens.pieces], turns=[-1, *tokens.turns])

    @functools.cached_property
    def _stop_id(self) -> int:
        """The id that ends an answer in the run's template."""
        record = Record((Message("user", "Hello"), Message("assistant", "Yes")), where="format")
        chat = self._renderer.chat(record)
        name = self._renderer.template.name
        marked = self._renderer.last(chat, 1)
        if marked is None:
            raise UserError(
                f"format.template = {name!r}: expected that an answer follows the text that prompts"
                " it, and ends in a control token of the tokenizer (see tokenizer.added_tokens)"
            )
        tokens = self._tokens(chat, marked)
        own = [p for p, turn in zip(tokens.pieces, tokens.turns, strict=True) if turn == 1]
        if own and len(own[-1]) == 1 and own[-1][0] in self.tokenizer.special_tokens.values():
            return own[-1][0]
        text = marked.text.partition(OPEN)[2].partition(CLOSE)[0].rpartition("Yes")[2].strip()
        raise UserError(
            f"format.template = {name!r}: its stop token {text!r} is not one token of the"
            " tokenizer; expected a tokenizer that has it (see tokenizer.added_tokens), or"
            " template 'plain'"
        )
