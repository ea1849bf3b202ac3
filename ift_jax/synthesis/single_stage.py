"""Alpaca's way to make data: instruction, input and output of many tasks in one answer.

The method is that of Stanford Alpaca (2023), which shortened Self-Instruct; the texts are ours.
"""

import dataclasses
from collections.abc import Sequence

from ift_jax.synthesis import filters, prompts
from ift_jax.synthesis.draws import draws_of, seed_of, some_of
from ift_jax.synthesis.generator import LENGTH, TOO_LONG, Completer, TextRequest
from ift_jax.synthesis.rounds import Round
from ift_jax.synthesis.seeds import SeedTask, short_seeds
from ift_jax.synthesis.self_instruct import index_of

SHOWN_TASKS = 3
TASKS = "tasks"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the examples besides model and seed tasks; defaults are Alpaca's."""

    seed: int = 0
    prompts_per_round: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 3072
    repetition_penalty: float = 1.0
    similarity: float = 0.7  # The ROUGE-L from which on an instruction is no new one.
    tasks_per_prompt: int = 20  # Those that a prompt shows are among them.


class SingleStage:
    """Alpaca's single stage, a round at a time."""

    def __init__(self, seeds: Sequence[SeedTask], settings: Settings):
        """Begin with the seed tasks alone."""
        self._settings = settings
        self._shown = short_seeds(seeds, SHOWN_TASKS)
        self._index = index_of(seeds, settings.similarity)

    def round(self, number: int, completer: Completer) -> Round:
        settings = self._settings
        requests = []
        for slot in range(settings.prompts_per_round):
            draws = draws_of(settings.seed, TASKS, number, slot)
            shown = some_of(draws, self._shown, SHOWN_TASKS)
            requests.append(
                TextRequest(
                    prompts.single_stage_prompt(shown, settings.tasks_per_prompt),
                    settings.max_tokens,
                    settings.temperature,
                    settings.top_p,
                    settings.repetition_penalty,
                    prompts.single_stage_stop(settings.tasks_per_prompt),
                    seed_of(settings.seed, TASKS, number, slot),
                )
            )
        of_round = Round()
        for [answer] in completer.complete(requests):
            if answer.finish_reason == TOO_LONG:
                of_round.reject(TASKS, filters.NO_ROOM, "")
                continue
            written = prompts.read_single_stage(answer.text)
            for i, (instruction, draft) in enumerate(written):
                is_cut_off = answer.finish_reason == LENGTH and i == len(written) - 1
                self._take(of_round, instruction, draft, is_cut_off)
        return of_round

    def _take(
        self, of_round: Round, instruction: str, draft: filters.Draft, is_cut_off: bool
    ) -> None:
        """Keep a task, or say why not."""
        fault = "" if is_cut_off else filters.fault_of_instruction(instruction)
        kept, rejected = filters.checked_instances([draft], cut_off=is_cut_off)
        if not fault and rejected:
            [(fault, _)] = rejected
        if not fault and self._index.first_similar(instruction) is not None:
            fault = filters.SIMILAR
        if fault:
            of_round.reject(TASKS, fault, draft.text)
            return
        of_round.keep(TASKS)
        self._index.add(instruction)
        of_round.rows.append({"instruction": instruction, **kept[0]._asdict()})
