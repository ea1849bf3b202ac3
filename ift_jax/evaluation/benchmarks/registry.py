"""The benchmarks by name."""

from collections.abc import Mapping
from typing import NamedTuple

from ift_jax.errors import UserError, offered
from ift_jax.evaluation.benchmarks.alpaca_eval import AlpacaEval
from ift_jax.evaluation.benchmarks.arc import ArcChallenge, ArcEasy
from ift_jax.evaluation.benchmarks.base import Benchmark, Item
from ift_jax.evaluation.benchmarks.bbh import BigBenchHard
from ift_jax.evaluation.benchmarks.gsm8k import Gsm8k
from ift_jax.evaluation.benchmarks.hellaswag import HellaSwag
from ift_jax.evaluation.benchmarks.human_eval import HumanEval
from ift_jax.evaluation.benchmarks.ifeval import IfEval
from ift_jax.evaluation.benchmarks.mmlu import Mmlu
from ift_jax.evaluation.benchmarks.mt_bench import MtBench

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Gsm8k(),
        BigBenchHard(),
        Mmlu(),
        ArcEasy(),
        ArcChallenge(),
        HellaSwag(),
        IfEval(),
        MtBench(),
        AlpacaEval(),
        HumanEval(),
    )
}


class Chosen(NamedTuple):
    """A benchmark that was asked for."""

    benchmark: Benchmark
    groups: tuple[str, ...]  # The tasks or subjects; empty for all.

    def of_groups(self, items: list[Item]) -> list[Item]:
        """Return the items of the chosen groups.

        Raises:
            UserError: There is no such group.
        """
        there = {item.group for item in items}
        for group in self.groups:
            if group not in there:
                name = self.benchmark.name
                hint = offered(group, sorted(there))
                raise UserError(f"--benchmarks {name}:{group}: {name} has no such group{hint}")
        return [item for item in items if not self.groups or item.group in self.groups]


def choose(text: str) -> list[Chosen]:
    """Return the benchmarks that a text names, such as "gsm8k,bbh:navigate+word_sorting".

    Raises:
        UserError: There is no such benchmark, or one is named twice.
    """
    chosen: dict[str, Chosen] = {}
    for part in text.split(","):
        name, _, groups = part.strip().partition(":")
        if name not in BENCHMARKS:
            hint = offered(name, BENCHMARKS)
            raise UserError(f"--benchmarks {name}: no such benchmark{hint}")
        if name in chosen:
            raise UserError(f"--benchmarks {name}: is named twice")
        of_groups = tuple(group for group in groups.split("+") if group)
        chosen[name] = Chosen(BENCHMARKS[name], of_groups)
    return list(chosen.values())
