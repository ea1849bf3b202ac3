r"""In-context learning (Brown et al. 2020, arXiv:2005.14165): any text task as k-shot prompts.

Named after the modules of the tasks, `ift_jax.sources.few_shot` gives every text task registered
so far (records of `inputs` and `targets`) twins `<task>_1_shot`, `_5_shot` and `_32_shot`, and
every mixture of such tasks a mixture of the twins:

    --config.data.modules="('tasks.quickstart.tasks', 'ift_jax.sources.few_shot')" \
    --config.data.heldout_mixture=quickstart_heldout_5_shot

A prompt holds k solved examples and the question, as blocks between empty lines. The examples
come from the task's "train" split, or, where it has none, from the question's own split (GPT-3
does the same); they are drawn by (seed, task, index), never equal the question, and one that
would make the prompt too long is left out. The metrics are the task's own, on the answer up to
the first empty line: a model that was never tuned goes on with another example.
"""

import functools
import importlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match
from ift_jax.sources.base import PythonDataSource, existing_file, file_hash
from ift_jax.sources.random_draws import Draws
from ift_jax.sources.register import register_task
from ift_jax.text.tokenizers.load import load_tokenizer

SHOTS = (1, 5, 32)
MAX_CHARACTERS = 8000  # About the 2,048 tokens of GPT-3's context.
_POOL = 2000  # Examples that demonstrations are drawn from, evenly spread over the split.
_SUFFIX = "_shot"
_FIRST_BLOCK = "first_block:"


class InContextSource(PythonDataSource):
    """The examples of a task, each behind solved examples of the same task.

    Args:
      task: a text task.
      shots: solved examples, at the most.
      max_characters: bound of the prompt; the question itself is never cut.
      tokenizer: a SentencePiece model or a tokenizer.json: `max_tokens` of it are the bound.
      max_tokens: see `tokenizer`.
    """

    def __init__(
        self,
        task: seqio.Task,
        shots: int,
        *,
        max_characters: int = MAX_CHARACTERS,
        tokenizer: str = "",
        max_tokens: int = 2048,
    ) -> None:
        self._task, self._shots = task, shots
        self._limits = [max_characters, tokenizer, max_tokens]
        self._pools: dict[str, list[tuple[int, dict[str, str]]]] = {}
        super().__init__(task.splits)

    @property
    def fields(self) -> tuple[str, ...]:
        extra = self._python.fields if self._python else ()
        return ("inputs", "targets", *(f for f in extra if f in ("references", "choices")))

    @property
    def group(self) -> str:
        return getattr(self._task.source, "group", "")

    @property
    def _python(self) -> PythonDataSource | None:
        """The task's source, where its records are the task's examples."""
        source = self._task.source
        plain = isinstance(source, PythonDataSource) and not self._task.preprocessors
        return source if plain else None

    def files(self, split: str) -> list[str]:
        source, both = self._task.source, (split, self._pool_split(split))
        if isinstance(source, PythonDataSource):
            paths = [path for name in both for path in source.files(name)]
        elif isinstance(source, seqio.FileDataSource):
            paths = [path for name in both for path in source.list_shards(name)]
        else:
            paths = []
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

    def options(self, split: str) -> Any:
        source, pool = self._task.source, self._pool_split(split)
        inner = [self._task.name, split, pool]
        if isinstance(source, PythonDataSource):
            inner += [source.options(split), source.options(pool)]
        elif isinstance(source, seqio.TfdsDataSource):
            inner.append(str(source.tfds_dataset.name))
        max_characters, tokenizer, max_tokens = self._limits
        bytes_hash = file_hash(existing_file(tokenizer)) if tokenizer else ""
        return [self._shots, max_characters, bytes_hash, max_tokens, inner]

    def _pool_split(self, split: str) -> str:
        return "train" if "train" in self.splits else split

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        count = self._task.num_input_examples(split)
        return super().num_input_examples(split) if count is None else count

    def items(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        return self._examples(split, 0, 0, 1)

    def records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[dict[str, str]]:
        self.check_split(split)
        for item in self._examples(split, seed, shard_index, num_shards):
            yield self.render(item, split, item[0], seed)

    def render(
        self, item: tuple[int, dict[str, str]], split: str, index: int, seed: int
    ) -> dict[str, str]:
        number, record = item
        draws = Draws(seed, "in context", self._task.name, split, number)
        shown = self._solved(record["inputs"], split, number, draws)
        question = _open(record["inputs"])
        blocks: list[str] = []
        for example in shown:
            block = _open(example["inputs"]) + example["targets"].strip()
            if self._fits("\n\n".join([*blocks, block, question])):
                blocks.append(block)
        return record | {"inputs": "\n\n".join([*blocks, question])}

    def _solved(
        self, question: str, split: str, number: int, draws: Draws
    ) -> Iterator[dict[str, str]]:
        """Yields up to `shots` examples of the pool, in random order, but for the question."""
        pool_split = self._pool_split(split)
        if pool_split not in self._pools:
            self._pools[pool_split] = self._pool(pool_split)
        pool = self._pools[pool_split]
        taken: set[int] = set()
        shown = 0
        while shown < self._shots and len(taken) < len(pool):
            place = draws.below(len(pool))
            if place in taken:
                continue
            taken.add(place)
            index, example = pool[place]
            itself = pool_split == split and index == number
            if not itself and example["inputs"].strip() != question.strip():
                shown += 1
                yield example

    def _pool(self, split: str) -> list[tuple[int, dict[str, str]]]:
        stride = max(1, -(-(self._task.num_input_examples(split) or 0) // _POOL))
        return list(itertools.islice(self._examples(split, 0, 0, stride), _POOL))

    def _fits(self, text: str) -> bool:
        max_characters, tokenizer, max_tokens = self._limits
        if tokenizer:
            return len(_tokenizer(tokenizer).encode(text)) <= max_tokens
        return len(text) <= max_characters

    def _examples(
        self, split: str, seed: int, shard_index: int, num_shards: int
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields the task's examples of a shard, each with its number in the split."""
        source = self._python
        if source is not None and hasattr(source, "numbered"):
            return source.numbered(split, seed, shard_index, num_shards)
        if source is not None:
            records = source.records(
                split, seed=seed, shard_index=shard_index, num_shards=num_shards
            )
        else:
            every = _read(self._task, split, seed)
            records = itertools.islice(every, shard_index, None, num_shards)
        return zip(itertools.count(shard_index, num_shards), records, strict=False)


def _open(text: str) -> str:
    """Ends a question so that the answer can follow."""
    return text if text[-1:].isspace() else text + "\n"


@functools.cache
def _tokenizer(path: str) -> Any:
    return load_tokenizer(path)


def _read(task: seqio.Task, split: str, seed: int) -> Iterator[dict[str, str]]:
    """Yields the text of a task that has preprocessors, or another's source."""
    source = task.source
    if isinstance(source, seqio.FunctionDataSource):
        if "seed" not in inspect.signature(source._dataset_fn).parameters:
            seed = None  # SeqIO refuses it.
    dataset = task.get_dataset(
        None, split=split, shuffle=False, num_epochs=1, seed=seed, try_in_mem_cache=False
    )
    for example in dataset.as_numpy_iterator():
        yield {name: example[name].decode() for name in ("inputs", "targets")}


def register_shots(task_name: str, shots: int, **options: Any) -> str:
    """Registers `<task>_<shots>_shot`; returns the name.

    Args:
      task_name: a registered text task.
      shots: solved examples a prompt.
      **options: of `InContextSource`: what bounds the prompt.

    Raises:
      UserError: no such task, or not one of text.
    """
    if task_name not in seqio.TaskRegistry.names():
        raise UserError(f"no SeqIO task is called {task_name!r}")
    task = seqio.TaskRegistry.get(task_name)
    if not _is_text(task):
        raise UserError(f"task {task_name!r}: expected text, features inputs and targets")
    name = f"{task_name}_{shots}{_SUFFIX}"
    metric_fns = [_first_block(f) for f in dict.fromkeys([exact_match, *task.metric_fns])]
    register_task(name, InContextSource(task, shots, **options), metric_fns=metric_fns)
    return name


def register(root: str = "", shots: Sequence[int] = SHOTS) -> None:
    """Registers the k-shot twins of every text task and mixture that is registered already.

    Args:
      root: data.root; the tasks know their data themselves.
      shots: the numbers of solved examples.
    """
    del root
    text = {
        name
        for name in seqio.TaskRegistry.names()
        if not name.endswith(_SUFFIX) and _is_text(seqio.TaskRegistry.get(name))
    }
    for name in sorted(text):
        for k in shots:
            register_shots(name, k)
    for name in list(seqio.MixtureRegistry.names()):
        mixture = seqio.MixtureRegistry.get(name)
        names = [task.name for task in mixture.tasks]
        if name.endswith(_SUFFIX) or not set(names) <= text:
            continue
        for k in shots:
            twin = f"{name}_{k}{_SUFFIX}"
            if twin not in seqio.MixtureRegistry.names():
                rates = [(f"{t}_{k}{_SUFFIX}", _rate(mixture, t)) for t in names]
                seqio.MixtureRegistry.add(twin, rates)


def _is_text(task: seqio.Task) -> bool:
    features = task.output_features
    return set(features) == {"inputs", "targets"} and all(
        feature.dtype == tf.string for feature in features.values()
    )


def _rate(mixture: seqio.Mixture, name: str) -> Any:
    """The twin's rate: the task's own, or its share in a mixture of mixtures when asked for."""
    if name in mixture.rate_per_task_name:
        return mixture.rate_per_task_name[name]
    return lambda twin: mixture.get_rate(seqio.TaskRegistry.get(name))


# Metrics on the first block


def first_block(text: str) -> str:
    """Returns an answer up to the first empty line."""
    return text.strip().split("\n\n", 1)[0]


@functools.cache
def _first_block(function: Callable[..., Mapping[str, float]]) -> Callable[..., Any]:
    """The same metric on the first blocks; found again by its name, as evaluation does."""

    def metric(targets: Sequence[Any], predictions: Sequence[str]) -> Mapping[str, float]:
        return function(targets, [first_block(text) for text in predictions])

    name = getattr(function, "__qualname__", "<unnamed>")
    metric.__qualname__ = f"{_FIRST_BLOCK}{function.__module__}:{name}"
    return metric


def __getattr__(name: str) -> Any:
    if not name.startswith(_FIRST_BLOCK):
        raise AttributeError(name)
    module, _, function = name.removeprefix(_FIRST_BLOCK).partition(":")
    return _first_block(getattr(importlib.import_module(module), function))
