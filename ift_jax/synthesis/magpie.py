"""Magpie (arXiv:2406.08464): a chat model writes the user's turn, and then answers it.

The prompt is what the chat template writes before a user's text and nothing else, so an aligned
model continues it with a question like those that it was trained on.
"""

import dataclasses

from ift_jax.synthesis import filters
from ift_jax.synthesis.draws import seed_of
from ift_jax.synthesis.generator import LENGTH, TOO_LONG, Completer, TextRequest
from ift_jax.synthesis.rounds import Round
from ift_jax.synthesis.similarity import SimilarityIndex
from ift_jax.text.records import Message

INSTRUCTIONS = "instructions"
ANSWERS = "answers"
SAME_AS_INSTRUCTION = "answer is the instruction"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the examples besides the model; defaults are the paper's but for lengths."""

    header: str  # What the chat template writes before a user's text.
    seed: int = 0
    prompts_per_round: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512  # The limit of a user's turn.
    answer_temperature: float = 0.0
    max_answer_tokens: int = 1024
    repetition_penalty: float = 1.0
    similarity: float = 0.7  # The ROUGE-L from which on an instruction is no new one.
    stop: tuple[str, ...] = ()  # What ends a user's turn besides the model's own stop tokens.


class Magpie:
    """Magpie's two stages, a round at a time."""

    def __init__(self, settings: Settings):
        """Begin without instructions."""
        self._settings = settings
        self._index = SimilarityIndex(settings.similarity)
        self._known: set[str] = set()

    def round(self, number: int, completer: Completer) -> Round:
        of_round = Round()
        instructions = self._instructions(number, completer, of_round)
        settings = self._settings
        requests = [
            TextRequest(
                (Message("user", instruction),),
                settings.max_answer_tokens,
                settings.answer_temperature,
                repetition_penalty=settings.repetition_penalty,
                seed=seed_of(settings.seed, ANSWERS, number, slot),
            )
            for slot, instruction in enumerate(instructions)
        ]
        for instruction, [answer] in zip(instructions, completer.complete(requests), strict=True):
            text = answer.text.strip()
            if fault := _fault(text, answer.finish_reason):
                of_round.reject(ANSWERS, fault, text)
            elif text == instruction:
                of_round.reject(ANSWERS, SAME_AS_INSTRUCTION, text)
            else:
                of_round.keep(ANSWERS)
                turns = (("user", instruction), ("assistant", text))
                messages = [{"role": role, "content": content} for role, content in turns]
                of_round.rows.append({"messages": messages})
        return of_round

    def _instructions(self, number: int, completer: Completer, of_round: Round) -> list[str]:
        """Ask for user's turns, and keep those that are new."""
        settings = self._settings
        requests = [
            TextRequest(
                settings.header,
                settings.max_tokens,
                settings.temperature,
                settings.top_p,
                settings.repetition_penalty,
                settings.stop,
                seed_of(settings.seed, INSTRUCTIONS, number, slot),
                controls=True,
            )
            for slot in range(settings.prompts_per_round)
        ]
        kept = []
        for [answer] in completer.complete(requests):
            text = answer.text.strip()
            fault = _fault(text, answer.finish_reason)
            # ROUGE-L knows ASCII letters and digits alone.
            is_known = text in self._known or self._index.first_similar(text) is not None
            if not fault and is_known:
                fault = filters.SIMILAR
            if fault:
                of_round.reject(INSTRUCTIONS, fault, text)
                continue
            of_round.keep(INSTRUCTIONS)
            self._index.add(text)
            self._known.add(text)
            kept.append(text)
        return kept


def _fault(text: str, finish_reason: str) -> str:
    if finish_reason == TOO_LONG:
        return filters.NO_ROOM
    if finish_reason == LENGTH:
        return filters.CUT_OFF
    return "" if text else filters.EMPTY
