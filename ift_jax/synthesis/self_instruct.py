"""Self-Instruct (arXiv:2212.10560): instructions, then their kind, then their instances."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.synthesis import filters, prompts
from ift_jax.synthesis.draws import draws_of, seed_of, some_of
from ift_jax.synthesis.generator import LENGTH, TOO_LONG, Completer, TextRequest
from ift_jax.synthesis.rounds import Round
from ift_jax.synthesis.seeds import SeedTask, short_seeds
from ift_jax.synthesis.similarity import SimilarityIndex

# Tasks that a prompt for instructions shows: of people, and of those that the model made.
SHOWN_TASKS = 8
SHOWN_MADE = 2
SHOWN_OF_A_KIND = 3  # Classification tasks that the question for the kind shows, and others.
SHOWN_WITH_INSTANCES = 4

INSTRUCTIONS = "instructions"
KINDS = "kinds"
INSTANCES = "instances"
UNCLEAR = "neither yes nor no, so not taken for classification"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the examples besides model and seed tasks; defaults are the paper's."""

    seed: int = 0
    prompts_per_round: int = 32
    temperature: float = 0.7
    top_p: float = 0.5
    max_tokens: int = 1024  # The limit of an answer with instructions.
    instance_temperature: float = 0.0
    max_instance_tokens: int = 350
    repetition_penalty: float = 1.0
    similarity: float = 0.7  # The ROUGE-L from which on an instruction is no new one.


class _New(NamedTuple):
    """An instruction that was kept."""

    instruction: str
    is_classification: bool = False


class SelfInstruct:
    """Self-Instruct's three stages, a round at a time."""

    def __init__(self, seeds: Sequence[SeedTask], settings: Settings):
        """Begin with the seed tasks alone."""
        self._settings = settings
        self._seeds = seeds
        self._made: list[str] = []
        self._index = index_of(seeds, settings.similarity)
        self._of_kind = {
            kind: [seed for seed in seeds if seed.is_classification is kind]
            for kind in (True, False)
        }
        self._shown = {
            kind: short_seeds(of_kind or seeds, SHOWN_WITH_INSTANCES)
            for kind, of_kind in self._of_kind.items()
        }

    def round(self, number: int, completer: Completer) -> Round:
        of_round = Round()
        new = self._instructions(number, completer, of_round)
        new = self._with_kinds(number, completer, of_round, new)
        self._instances(number, completer, of_round, new)
        return of_round

    def _instructions(self, number: int, completer: Completer, of_round: Round) -> list[_New]:
        """Ask for instructions, and keep those that are new."""
        settings = self._settings
        requests = []
        for slot in range(settings.prompts_per_round):
            draws = draws_of(settings.seed, INSTRUCTIONS, number, slot)
            made = some_of(draws, self._made, SHOWN_MADE)
            people = [
                seed.instruction for seed in some_of(draws, self._seeds, SHOWN_TASKS - len(made))
            ]
            shown = draws.sample([*people, *made], len(people) + len(made))
            requests.append(
                TextRequest(
                    prompts.instructions_prompt(shown),
                    settings.max_tokens,
                    settings.temperature,
                    settings.top_p,
                    settings.repetition_penalty,
                    prompts.instructions_stop(len(shown)),
                    seed_of(settings.seed, INSTRUCTIONS, number, slot),
                )
            )
        new = []
        for [answer] in completer.complete(requests):
            if answer.finish_reason == TOO_LONG:
                of_round.reject(INSTRUCTIONS, filters.NO_ROOM, "")
                continue
            written = prompts.read_instructions(answer.text)
            for i, instruction in enumerate(written):
                is_cut_off = answer.finish_reason == LENGTH and i == len(written) - 1
                fault = filters.CUT_OFF if is_cut_off else self._fault(instruction)
                if fault:
                    of_round.reject(INSTRUCTIONS, fault, instruction)
                else:
                    of_round.keep(INSTRUCTIONS)
                    self._index.add(instruction)
                    new.append(_New(instruction))
        self._made += [item.instruction for item in new]
        return new

    def _fault(self, instruction: str) -> str:
        fault = filters.fault_of_instruction(instruction)
        if not fault and self._index.first_similar(instruction) is not None:
            fault = filters.SIMILAR
        return fault

    def _with_kinds(
        self, number: int, completer: Completer, of_round: Round, new: Sequence[_New]
    ) -> list[_New]:
        """Ask which of the new instructions are classification tasks."""
        settings = self._settings
        if not all(self._of_kind.values()):
            return list(new)  # Without examples of both kinds there is no way to ask.
        requests = []
        for slot, item in enumerate(new):
            draws = draws_of(settings.seed, KINDS, number, slot)
            shown = [
                seed
                for of_kind in self._of_kind.values()
                for seed in some_of(draws, of_kind, SHOWN_OF_A_KIND)
            ]
            shown = draws.sample(shown, len(shown))
            prompt = prompts.classification_prompt(shown, item.instruction)
            requests.append(
                TextRequest(prompt, prompts.CLASSIFICATION_TOKENS, stop=prompts.CLASSIFICATION_STOP)
            )
        of_kinds = []
        for item, [answer] in zip(new, completer.complete(requests), strict=True):
            is_classification = prompts.read_classification(answer.text)
            if is_classification is None:
                of_round.reject(KINDS, UNCLEAR, item.instruction)
            else:
                of_round.keep(KINDS)
            of_kinds.append(item._replace(is_classification=bool(is_classification)))
        return of_kinds

    def _instances(
        self, number: int, completer: Completer, of_round: Round, new: Sequence[_New]
    ) -> None:
        """Ask for the instances of the new instructions."""
        settings = self._settings
        requests = []
        for slot, item in enumerate(new):
            draws = draws_of(settings.seed, INSTANCES, number, slot)
            shown = some_of(draws, self._shown[item.is_classification], SHOWN_WITH_INSTANCES)
            write = (
                prompts.output_first_prompt
                if item.is_classification
                else prompts.input_first_prompt
            )
            requests.append(
                TextRequest(
                    write(shown, item.instruction),
                    settings.max_instance_tokens,
                    settings.instance_temperature,
                    repetition_penalty=settings.repetition_penalty,
                    stop=prompts.INSTANCES_STOP,
                    seed=seed_of(settings.seed, INSTANCES, number, slot),
                )
            )
        for item, [answer] in zip(new, completer.complete(requests), strict=True):
            if answer.finish_reason == TOO_LONG:
                of_round.reject(INSTANCES, filters.NO_ROOM, item.instruction)
                continue
            read = prompts.read_output_first if item.is_classification else prompts.read_input_first
            kept, rejected = filters.checked_instances(
                read(answer.text), cut_off=answer.finish_reason == LENGTH
            )
            for reason, text in rejected:
                of_round.reject(INSTANCES, reason, text)
            for instance in kept:
                of_round.keep(INSTANCES)
                of_round.rows.append({"instruction": item.instruction, **instance._asdict()})


def index_of(seeds: Sequence[SeedTask], similarity: float) -> SimilarityIndex:
    """Return an index of the seed tasks' instructions."""
    index = SimilarityIndex(similarity)
    for seed in seeds:
        index.add(seed.instruction)
    return index
