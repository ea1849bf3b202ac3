"""Checking a chat template together with a tokenizer, by encoding short conversations."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.answers import writes_thought
from ift_jax.text.chat_templates.probes import probes
from ift_jax.text.dropped import TEMPLATE_UNSTABLE, Dropped
from ift_jax.text.encoded import Encoded
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.prompts import UnwrittenError
from ift_jax.text.records import Message, Record

_CHECKS = {  # Name -> what is so if nothing was found.
    "writes_all": "the template writes all that a conversation says",
    "one_bos": "a conversation has at most one BOS, where the tokenizer puts it",
    "stop_trained": "every answer ends in its trained stop token",
    "header_untrained": "no answer begins with a control token",
    "prefix_stable": "every answer follows the text that prompts it",
    "prompt_is_prefix": "the ids of a prompt begin the ids of training",
    "whole_text_ids": "the ids are those of the whole text",
    "no_clock": "the template is never given the time",
    "options_read": "the template reads every variable that is set for it",
}
_SPACED = Record((Message("user", "Code?"), Message("assistant", "\n  x = 1\n")), where="probe")


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str  # Its name.
    ok: bool
    detail: str  # What was found.
    is_note: bool = False  # Whether that is worth knowing, although it is no mistake.

    def __str__(self) -> str:
        state = "WRONG" if not self.ok else "note" if self.is_note else "ok"
        return f"{state:<6}{self.check:<18}{self.detail}"


def lint(formatter: ExampleFormatter) -> list[Finding]:
    """Check a decoder's format; return one finding for each check.

    The checks are:
        writes_all: The template writes each text of a conversation.
        one_bos: A conversation has at most one BOS, and one where the tokenizer itself puts it
            before a text (unless `format.add_bos` is "never").
        stop_trained: The stop token of every trained turn is trained.
        header_untrained: No answer begins with a control token.
        prefix_stable: Answers follow the text that prompts them, all in one example or in an
            example for each turn.
        prompt_is_prefix: The ids of a prompt begin the ids of training.
        whole_text_ids: Notes whether the ids are those of the whole text; an answer's edge may
            split a token.
        no_clock: A template is never given the time.
        options_read: The template reads each of `format.template_options`.
    """
    linter = _Linter(formatter)
    for record in (*probes(formatter.template_source), _SPACED):
        linter.check(record)
    return linter.findings()


class _Linter:
    """Collects what is wrong, and what is worth a note, by check."""

    def __init__(self, formatter: ExampleFormatter):
        self._formatter = formatter
        self._tokenizer = formatter.tokenizer
        self._wrong: dict[str, str] = {}
        if unread := formatter.unread_options():
            self._wrong["options_read"] = unread
        self._notes: dict[str, str] = {}
        self._any_encoded = False
        # In some models BOS opens every turn, such as SmolLM2's <|im_start|>.
        bos = self._tokenizer.special_tokens_map.get("bos_token")
        self._bos_opens_turns = bos is not None and bos in formatter.template_source
        self._expects_bos = self._tokenizer.adds_bos and formatter.add_bos != "never"
        special = set(self._tokenizer.special_tokens.values())
        self._controls = special - set(formatter.stop_ids)

    def check(self, record: Record) -> None:
        """Encode a conversation and check every answer in it."""
        try:
            examples = self._formatter.encode(record)
        except UnwrittenError as error:
            self._wrong.setdefault("writes_all", str(error).partition(" does not write ")[2])
            return
        except UserError:
            return  # The template writes no such conversation.
        if isinstance(examples, Dropped):
            self._note_dropped(record, examples)
            return
        self._any_encoded = True
        if len(examples) > 1:
            self._notes["prefix_stable"] = "one example for each trained turn"
        turns = [i for i, message in enumerate(record.messages) if message.role == "assistant"]
        first = examples[0]
        start = int(np.argmax(first.weights > 0))
        openings = self._controls & set(first.tokens[:start].tolist())
        for k, turn in enumerate(turns):
            example = examples[min(k, len(examples) - 1)]
            tokens = example.tokens.tolist()
            self._check_bos(tokens, len(turns))
            self._check_answers(example, tokens, set() if record.tools else openings)
            self._check_prompt(record, turn, tokens)
            text = self._tokenizer.decode(tokens, keep_special=True)
            if tokens != self._tokenizer.encode_with_controls(text):
                self._notes["whole_text_ids"] = (
                    "they differ from those of the whole text, which has a token across an "
                    "answer's edge; training and generation both split the text there"
                )

    def findings(self) -> list[Finding]:
        """Return the findings of all checks."""
        if not self._any_encoded:
            self._wrong["prefix_stable"] = "no probing conversation could be rendered"
        return [
            Finding(
                check,
                check not in self._wrong,
                self._wrong.get(check) or self._notes.get(check, so),
                check in self._notes,
            )
            for check, so in _CHECKS.items()
        ]

    def _note_dropped(self, record: Record, dropped: Dropped) -> None:
        if any(m.reasoning_content or "</think>" in m.content for m in record.messages):
            self._notes.setdefault("prefix_stable", "records with thoughts are dropped")
        elif dropped == TEMPLATE_UNSTABLE:
            self._wrong["prefix_stable"] = (
                "an answer does not follow its prompt, or no token stops it"
            )

    def _check_bos(self, tokens: Sequence[int], n_turns: int) -> None:
        bos = self._tokenizer.bos_id
        count = 0 if self._bos_opens_turns else tokens.count(bos)
        if self._expects_bos and tokens[0] != bos:
            self._wrong.setdefault(
                "one_bos",
                "none, but the tokenizer puts one before a text: set format.add_bos to 'always', or"
                " to 'never' if that is meant",
            )
        # Conversations of several rounds may repeat BOS, as Llama 2's do.
        if (n_turns < 2 and count > 1) or tokens[:2] == [bos, bos]:
            self._wrong.setdefault("one_bos", f"{count} BOS tokens")

    def _check_answers(self, example: Encoded, tokens: Sequence[int], openings: set[int]) -> None:
        """Check where answers begin and end; `openings` are controls that open other turns."""
        trained = example.weights > 0
        ends = np.flatnonzero(trained & ~np.append(trained[1:], False)).tolist()
        if any(tokens[end] not in self._formatter.stop_ids for end in ends):
            self._wrong["stop_trained"] = "an answer ends in another token"
        starts = np.flatnonzero(trained & ~np.append(False, trained[:-1])).tolist()
        # A call or a channel may begin with a control token, such as [TOOL_CALLS] or <|channel|>;
        # one that the turns before the first answer have, too, belongs to a header.
        if any(tokens[start] in openings for start in starts):
            self._wrong["header_untrained"] = "an answer begins with a control"

    def _check_prompt(self, record: Record, turn: int, tokens: Sequence[int]) -> None:
        before = dataclasses.replace(record, messages=record.messages[:turn])
        prompt = self._formatter.prompt(before).tolist()
        if tokens[: len(prompt)] == prompt:
            return
        if writes_thought(self._tokenizer.decode(prompt, keep_special=True)):
            self._notes["prompt_is_prefix"] = (
                "generation's prompt says whether the model thinks; answers that do the other thing"
                " follow the prompt for that"
            )
        else:
            self._wrong.setdefault("prompt_is_prefix", f"not so for {record.messages}")
