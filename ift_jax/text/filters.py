"""Filters of training examples, by what their answers say.

A filter is a function of a record that returns why it is dropped, or "". `data.filters` names those
of a run; what they drop is counted by reason in each task's store. They follow the filters of Olmo
3's data (report, A.7.1); the words and patterns are this project's own.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from ift_jax.config.data import DataConfig
from ift_jax.text.records import TEXT_ROLE, Message, Record

PREFIX = "filter_"  # It begins the reasons under which a store's manifest counts.
MOST_CHINESE = 0.05  # An answer with this share of them, or more, is dropped.
MOST_REPEATS = 10  # A sentence or paragraph that occurs so often drops its answer.
MOST_PHRASES = 50  # So does a phrase that occurs so often.
PHRASE_WORDS = 5  # The report does not say how long a phrase is.
_SHORTEST = 10  # Characters of a sentence or paragraph whose repeats count ("Yes." does not).

_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>")
_CHINESE = re.compile("[\u4e00-\u9fff]")  # The block of CJK unified ideographs.
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_CUTOFF = re.compile(
    r"\b(?:knowledge|training|data) cut-?off\b"
    r"|\bmy (?:last|latest|most recent) (?:knowledge |training )?update\b"
    r"|\bmy (?:training data|knowledge) (?:only )?(?:goes|extends|reaches|runs|ends|is current)\b"
    r"|\bI was last (?:updated|trained) (?:in|on)\b",
    re.IGNORECASE,
)
_MODELS = (
    r"(?:Open ?AI|ChatGPT|GPT-\d\w*|Anthropic|Claude|Google|Gemini|Bard|DeepSeek\w*|Qwen\w*|Tongyi"
    r"|Alibaba|Meta(?: AI)?|Llama\w*|Mistral\w*|Cohere|xAI|Grok|Perplexity|Microsoft|Copilot|NVIDIA"
    r"|Nemotron|Moonshot|Kimi|Zhipu|ChatGLM)"
)
_IDENTITY = re.compile(
    # What a model says of itself: "I'm Claude", "my name is Qwen", "as an AI by OpenAI".
    rf"\b(?:I am|I'm|I’m|my name is|call me)\s+(?:\w+[\s,]+){{0,4}}{_MODELS}\b"
    rf"|\bI (?:am|was)[^.!?\n]{{0,60}}\b(?:trained|developed|created|made|built) by {_MODELS}\b"
    rf"|\bas an? (?:AI|language|chat|assistant)[^.!?\n]{{0,60}}\b(?:from|by) {_MODELS}\b",
    re.IGNORECASE,
)


def thinking(record: Record) -> str:
    """Drop an answer whose thoughts are not closed, are empty, or lead to nothing."""
    for message in _answers(record):
        content = message.content
        if content.count("<think>") > content.count("</think>"):
            return "unclosed_thinking"
        if _EMPTY_THOUGHT.search(content):
            return "empty_thinking"
        _, closing, answer = content.rpartition("</think>")
        thinks = bool(closing or message.reasoning_content)
        if thinks and not (answer.strip() or message.tool_calls or message.function_calls):
            return "no_answer"
    return ""


def repeats(record: Record) -> str:
    """Drop an answer that says a sentence or paragraph 10 times, or five words 50 times."""
    for text in _texts(record):
        for ending, reason in (
            (_PARAGRAPH_END, "repeated_paragraph"),
            (_SENTENCE_END, "repeated_sentence"),
        ):
            units = (unit.strip() for unit in ending.split(text))
            if _most(unit for unit in units if len(unit) >= _SHORTEST) >= MOST_REPEATS:
                return reason
        words = text.lower().split()
        phrases = zip(*(words[start:] for start in range(PHRASE_WORDS)), strict=False)
        if _most(map(" ".join, phrases)) >= MOST_PHRASES:
            return "repeated_phrase"
    return ""


def script_share(text: str, script: "re.Pattern[str]") -> float:
    """Return the share of a text's characters that a pattern of one character matches."""
    return len(script.findall(text)) / max(len(text), 1)


def chinese(record: Record) -> str:
    """Drop an answer of which at least 5% are Chinese characters."""
    shares = (script_share(text, _CHINESE) for text in _texts(record))
    return "chinese" if any(share >= MOST_CHINESE for share in shares) else ""


def dates(record: Record) -> str:
    """Drop an answer that mentions until when the model's knowledge goes."""
    return "dates" if any(map(_CUTOFF.search, _texts(record))) else ""


def identity(record: Record) -> str:
    """Drop an answer that says which model speaks, or which company made it."""
    return "identity" if any(map(_IDENTITY.search, _texts(record))) else ""


Filter = Callable[[Record], str]
FILTERS: Mapping[str, Filter] = {
    "thinking": thinking,
    "repeats": repeats,
    "chinese": chinese,
    "dates": dates,
    "identity": identity,
}


@dataclasses.dataclass(frozen=True)
class RowFilters:
    """The filters of a run.

    Attributes:
        names: `data.filters`.
        licenses: `data.licenses`, if `names` has "license".
    """

    names: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: DataConfig) -> "RowFilters":
        """Return what a config says."""
        licenses = data.licenses if "license" in data.filters else ()
        return cls(data.filters, tuple(name.lower() for name in licenses))

    def reason(self, record: Record) -> str:
        """Return why a record is dropped, for counting; "" if it is kept."""
        for name in self.names:
            if name == "license":
                why = "" if record.license.lower() in self.licenses else "license"
            else:
                why = FILTERS[name](record)
            if why:
                return PREFIX + why
        return ""


KEEP_ALL = RowFilters()


def _answers(record: Record) -> Iterator[Message]:
    return (m for m in record.messages if m.role in ("assistant", TEXT_ROLE))


def _texts(record: Record) -> Iterator[str]:
    """Yield what each answer says, its thoughts and calls included."""
    for message in _answers(record):
        parts = (message.reasoning_content, message.content, message.function_calls)
        yield "\n\n".join(part for part in parts if part)


def _most(units: Iterator[str]) -> int:
    """Return how often the most frequent unit occurs."""
    return max(Counter(units).values(), default=0)
