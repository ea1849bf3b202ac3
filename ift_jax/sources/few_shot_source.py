"""The examples of a text task, each after solved examples of the same task."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import seqio

from ift_jax.data.randomness import Draws
from ift_jax.io.files import file_digest
from ift_jax.sources.base import PythonDataSource, existing_file
from ift_jax.sources.demonstrations import PromptLimit, demonstrations_that_fit
from ift_jax.sources.task_examples import direct_source, text_examples

DEFAULT_LIMIT = PromptLimit(max_characters=8000)  # About the 2,048 tokens of GPT-3's context.
_POOL = 2000  # Examples that demonstrations are drawn from, evenly spread over the split.


class Numbered(NamedTuple):
    """An example of the task and its number in the split."""

    number: int
    record: dict[str, str]


class FewShotSource(PythonDataSource):
    """Prompts of solved examples and a question, as blocks between blank lines.

    The solved examples come from the task's "train" split or, where it has none, from the split of
    the question, as for GPT-3 (Brown et al. 2020, arXiv:2005.14165). They are drawn by (seed,
    task, index), never equal the question, and are left out one by one where the prompt would
    become too long; the question itself is never cut.

    Args:
        task: A text task, whose examples have `inputs` and `targets`.
        shots: The most solved examples per prompt.
        limit: The longest prompt.
    """

    def __init__(self, task: seqio.Task, shots: int, *, limit: PromptLimit = DEFAULT_LIMIT) -> None:
        self._task = task
        self._shots = shots
        self._limit = limit
        self._pools: dict[str, list[Numbered]] = {}
        super().__init__(task.splits)

    @property
    def fields(self) -> tuple[str, ...]:
        source = direct_source(self._task)
        given = source.fields if source else ()
        return ("inputs", "targets", *(f for f in given if f in ("references", "choices")))

    @property
    def group(self) -> str:
        """The group of the task, by which an evaluation summarizes the scores of its templates."""
        return getattr(self._task.source, "group", "")

    @property
    def cluster(self) -> str:
        """The cluster of the task, over which an evaluation takes means."""
        return getattr(self._task.source, "cluster", "")

    def files(self, split: str) -> list[str]:
        source = self._task.source
        splits = (split, self._pool_split(split))
        paths: list[str] = []
        if isinstance(source, PythonDataSource):
            paths = [path for name in splits for path in source.files(name)]
        elif isinstance(source, seqio.FileDataSource):
            paths = [path for name in splits for path in source.list_shards(name)]
        return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]

    @property
    def datasets(self) -> frozenset[str]:
        source = self._task.source
        inner = source.datasets if isinstance(source, PythonDataSource) else frozenset()
        return inner | {self._task.name}

    @property
    def holds_out(self) -> frozenset[str]:
        source = self._task.source
        inner = source.holds_out if isinstance(source, PythonDataSource) else frozenset()
        return inner | {self._task.name}

    @property
    def identity(self) -> Any:
        source = self._task.source
        inner = source.identity if isinstance(source, PythonDataSource) else None
        return [self._task.name, inner, self._shots, self._limit]

    def options(self, split: str) -> Any:
        source = self._task.source
        pool_split = self._pool_split(split)
        inner = [self._task.name, split, pool_split]
        if isinstance(source, PythonDataSource):
            inner += [source.options(split), source.options(pool_split)]
        elif isinstance(source, seqio.TfdsDataSource):
            inner.append(str(source.tfds_dataset.name))
        limit = self._limit
        tokenizer = file_digest(existing_file(limit.tokenizer)) if limit.tokenizer else ""
        return [self._shots, limit.max_characters, tokenizer, limit.max_tokens, inner]

    def _pool_split(self, split: str) -> str:
        return "train" if "train" in self.splits else split

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        count = self._task.num_input_examples(split)
        return super().num_input_examples(split) if count is None else count

    def items(self, split: str) -> Iterator[Numbered]:
        return self._examples(split, seed=0, shard_index=0, num_shards=1)

    def numbered_records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[tuple[int, dict[str, str]]]:
        self.check_split(split)
        for item in self._examples(split, seed, shard_index, num_shards):
            yield item.number, self.render(item, split, item.number, seed)

    def render(self, item: Numbered, split: str, index: int, seed: int) -> dict[str, str]:
        question = _open_block(item.record["inputs"])

        def prompt(blocks: Sequence[str]) -> str:
            return "\n\n".join([*blocks, question])

        def fits(blocks: Sequence[str]) -> bool:
            return self._limit.fits(prompt(blocks))

        solved = self._solved_blocks(item, split, seed)
        blocks = demonstrations_that_fit(solved, fits, skip_long=True)
        return item.record | {"inputs": prompt(blocks)}

    def _solved_blocks(self, item: Numbered, split: str, seed: int) -> Iterator[str]:
        """Yield up to `shots` examples of the pool in random order, never the question itself."""
        draws = Draws(seed, "in context", self._task.name, split, item.number)
        pool_split = self._pool_split(split)
        if pool_split not in self._pools:
            self._pools[pool_split] = self._read_pool(pool_split)
        pool = self._pools[pool_split]
        question = item.record["inputs"].strip()
        drawn: set[int] = set()
        shown = 0
        while shown < self._shots and len(drawn) < len(pool):
            index = draws.below(len(pool))
            if index in drawn:
                continue
            drawn.add(index)
            number, record = pool[index]
            is_the_question = pool_split == split and number == item.number
            if not is_the_question and record["inputs"].strip() != question:
                shown += 1
                yield _open_block(record["inputs"]) + record["targets"].strip()

    def _read_pool(self, split: str) -> list[Numbered]:
        count = self._task.num_input_examples(split) or 0
        stride = max(1, -(-count // _POOL))
        spread = self._examples(split, seed=0, shard_index=0, num_shards=stride)
        return list(itertools.islice(spread, _POOL))

    def _examples(
        self, split: str, seed: int, shard_index: int, num_shards: int
    ) -> Iterator[Numbered]:
        """Yield the task's examples of a shard."""
        source = direct_source(self._task)
        if source is not None:
            numbered = source.numbered_records(
                split, seed=seed, shard_index=shard_index, num_shards=num_shards
            )
            return itertools.starmap(Numbered, numbered)
        examples = enumerate(text_examples(self._task, split, seed))
        shard = itertools.islice(examples, shard_index, None, num_shards)
        return (Numbered(number, _inputs_and_targets(record)) for number, record in shard)


def _inputs_and_targets(record: dict[str, str]) -> dict[str, str]:
    return {name: record[name] for name in ("inputs", "targets")}


def _open_block(text: str) -> str:
    """Return a question that ends with white space, so that the answer can follow."""
    return text if text[-1:].isspace() else text + "\n"
