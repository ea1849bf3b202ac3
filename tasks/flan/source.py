"""The SeqIO source of a data set of FLAN: rows become prompts by way of templates."""

import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.dataset_rows import PlacedRow
from ift_jax.sources.register import register_task
from tasks.flan import layouts, option_styles, prompts
from tasks.flan.dataset import VALIDATION_EXAMPLES, Dataset, Fields
from tasks.flan.datasets import CLUSTERS, excluded_with
from tasks.flan.layouts import Exemplar
from tasks.flan.option_styles import OptionStyle
from tasks.flan.prompts import Template
from tasks.flan.rows import FlanRows, Part

_VERSION = 2  # Raised when a change to readers or templates changes the text that they make.
_CANDIDATES = 25  # The Collection draws this many exemplars and keeps those of the same template.
_MIXED_SHOTS = 5  # The number of exemplars whose templates differ.
_MOST_SHOTS = 16  # The most exemplars of "multi".
_OWN_EXEMPLARS = 2  # The number of exemplars that a task of Natural Instructions shows.
# The number of training examples that exemplars are drawn from. They stay in memory.
_POOL_SIZE = 4096
# The fields that hold an answer and are therefore no part of a question.
_ANSWER_FIELDS = frozenset({"answer", "answers", "rationale", "response"})


@dataclasses.dataclass(frozen=True)
class Form:
    """The form in which the examples of a data set are asked.

    Attributes:
        options: "block" (FLAN 2021), "styled" (the Collection) or "none".
        shots: The number of exemplars; "multi" for 1 to 16; "alike" for those of 25 exemplars that
            happen to have the query's template (the Collection's `x_shot`); or "drawn". With
            "drawn", half of the queries get "alike", the other half five exemplars with a template
            each (`template_mix_five_shot`).
        template: The number of the only template; -1 to draw one for each example.
        ranked: Whether the examples are for rank classification. Their records have `choices`, a
            JSON list of all answers.
        max_characters: The longest few-shot prompt. The last exemplars are left out where they
            would make it longer. (The originals count 960 and 1,920 tokens; a task knows no
            tokenizer, and English has about four characters a token.)
    """

    options: str = "block"
    shots: int | str = 0
    template: int = -1
    ranked: bool = False
    max_characters: int = 4 * 960


@dataclasses.dataclass(frozen=True)
class _Query:
    """A rendered example that exemplars are drawn for.

    `text` is the input, `index` the number of the example in the split.
    """

    item: Fields
    split: str
    index: int
    template: Template
    style: OptionStyle | None
    text: str


@dataclasses.dataclass(frozen=True)
class _PoolExample:
    """A training example that may become an exemplar, and its index in the training split."""

    index: int
    fields: Fields


class _Shots(NamedTuple):
    """How many exemplars a prompt gets, and whether each has a template of its own."""

    number: int
    mixed: bool


class FlanSource(PythonDataSource):
    """A data set of FLAN in one form.

    Training draws among all ten templates. The other splits draw among the templates that are not
    inverted, because their metric is that of the data set's own question.

    Args:
        dataset: The data set.
        root: The folder of local data, `data.root`.
        form: The form of its examples.
    """

    def __init__(self, dataset: Dataset, root: str, form: Form) -> None:
        self.dataset = dataset
        self.form = form
        self._root = root
        self._stored_pool: list[_PoolExample] | None = None
        splits = dataset.splits
        super().__init__([s for s in splits if s != "train"] if form.ranked else splits)

    @property
    def group(self) -> str:
        """The name that a task of one template shares with tasks of the other templates."""
        return self.dataset.name if self.form.template >= 0 else ""

    @property
    def cluster(self) -> str:
        """The cluster of the data set, over which an evaluation takes means."""
        return self.dataset.cluster

    @property
    def identity(self) -> Any:
        """What tells this source from others, without a look at any file."""
        return self.dataset.name, self.dataset.tfds, self._root, self.form

    @property
    def fields(self) -> tuple[str, ...]:
        fields = ["inputs", "targets"]
        if self.dataset.references:
            fields.append("references")
        if self.form.ranked:
            fields.append("choices")
        return tuple(fields)

    @property
    def datasets(self) -> frozenset[str]:
        parts = self.dataset.splits.values()
        names = {self.rows(part).dataset for part in parts}
        is_block_of_corpus = "test" in self.dataset.splits and len({p.split for p in parts}) == 1
        if is_block_of_corpus:
            names = set()  # Other data sets may be trained on other blocks of the corpus.
        if self.dataset.cluster in CLUSTERS:
            names.add(_holdout_name(self.dataset.cluster))
        return frozenset(names)

    @property
    def holds_out(self) -> frozenset[str]:
        cluster = self.dataset.cluster
        excluded = excluded_with(cluster) if cluster in CLUSTERS else ()
        return self.datasets.union(map(_holdout_name, excluded))

    def rows(self, part: Part) -> FlanRows:
        """Return the rows that a part is taken from."""
        return self.dataset.open_rows(self._root, part.tfds or self.dataset.tfds)

    def files(self, split: str) -> list[str]:
        paths = [path for part in self._parts(split) for path in self.rows(part).files(part.split)]
        return list(dict.fromkeys(paths))

    def options(self, split: str) -> Any:
        parts = [
            [part.tfds or self.dataset.tfds, part.split, part.start, part.stop, part.reserved]
            for part in self._parts(split)
        ]
        return [_VERSION, self.dataset.name, dataclasses.asdict(self.form), parts]

    def fingerprint(self, split: str) -> str:
        versions = [self.rows(part).version(part.split) for part in self._parts(split)]
        templates = [dataclasses.astuple(template) for template in self.templates("train")]
        text = json.dumps([super().fingerprint(split), versions, templates])
        return hashlib.sha256(text.encode()).hexdigest()

    def _parts(self, split: str) -> list[Part]:
        """Return the parts of the data that determine a split.

        Few-shot prompts depend on the training part too, because it holds the exemplars.
        """
        splits = dict.fromkeys((split, "train") if self.form.shots else (split,))
        return [self.dataset.splits[s] for s in splits]

    def templates(self, split: str) -> Sequence[Template]:
        """Return the templates that the examples of a split may have."""
        group = prompts.groups()[self.dataset.templates]
        if split == "train" or all(template.inverted for template in group):
            return group
        return [template for template in group if not template.inverted]

    @functools.cached_property
    def _question_fields(self) -> frozenset[str]:
        """The fields that make up the question of an example, whatever its answer."""
        group = prompts.groups()[self.dataset.templates]
        asked = [template.asks for template in group if not template.inverted]
        if not asked:
            asked = [template.needs - _ANSWER_FIELDS for template in group]
        return frozenset().union(*asked)

    def _ask_the_same(self, a: Fields, b: Fields) -> bool:
        return all(a.get(key) == b.get(key) for key in self._question_fields)

    def items(self, split: str) -> Iterator[Fields]:
        caps = {"train": self.dataset.train_cap, "validation": VALIDATION_EXAMPLES}
        cap = caps.get(split)
        # FLAN takes the first rows of a split and filters then. A row may hold several examples
        # (a dialog of QuAC), so both are capped.
        part = self.dataset.splits[split]
        rows = itertools.islice(self.rows(part).read_part(part), cap)
        return itertools.islice(self._examples(rows), cap)

    def _examples(self, rows: Iterable[PlacedRow]) -> Iterator[Fields]:
        for place, row in rows:
            try:
                yield from self.dataset.read(row)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise UserError(
                    f"{place}: not a row of {self.dataset.tfds} ({type(error).__name__}: {error}; "
                    f"it has: {', '.join(row)})"
                ) from None

    def render(self, item: Fields, split: str, index: int, seed: int) -> dict[str, str]:
        draws = Draws("flan", seed, self.dataset.name, split, index)
        template = self._draw_template(draws, item, split)
        style = self._draw_style(draws, item)
        text, target = prompts.fill(template, item, style)
        if self.form.shots:
            query = _Query(item, split, index, template, style, text)
            text = self._few_shot_prompt(draws, query)
        record = {"inputs": text, "targets": target}
        if self.dataset.references:
            answers = item.get("answers", [])
            is_own_answer = template.inverted or target not in answers
            record["references"] = _json_list([target] if is_own_answer else answers)
        if self.form.ranked:
            record["choices"] = _json_list(item["options"])
        return record

    def _draw_template(self, draws: Draws, item: Fields, split: str) -> Template:
        """Draw one of the templates whose fields the example has."""
        templates = [t for t in self.templates(split) if t.needs <= item.keys()]
        number = self.form.template
        return templates[number] if number >= 0 else draws.choice(templates)

    def _draw_style(self, draws: Draws, item: Fields) -> OptionStyle | None:
        if self.form.options == "none" or "options" not in item:
            return None
        if self.form.options == "block":
            return option_styles.PLAIN
        return option_styles.draw_style(draws)

    def _few_shot_prompt(self, draws: Draws, query: _Query) -> str:
        exemplars = self._exemplars(draws, query)
        is_styled = self.form.options == "styled"
        layout = draws.choice(layouts.LAYOUTS) if is_styled else layouts.PLAIN_LAYOUT
        return layout.prompt_that_fits(exemplars, query.text, self.form.max_characters)

    def _exemplars(self, draws: Draws, query: _Query) -> list[Exemplar]:
        """Draw solved examples, none of which asks what the query asks."""
        if "exemplars" in query.item:
            return self._own_exemplars(draws, query)
        pool = self._pool()
        shots = self._draw_shots(draws)
        templates = self.templates(query.split)
        used = {query.index} if query.split == "train" else set()
        found: list[Exemplar] = []
        # Some draws are in vain, so there are more of them than exemplars.
        for _ in range(4 * shots.number + 8):
            if len(found) == shots.number or len(used) >= len(pool):
                break
            example = draws.choice(pool)
            template = draws.choice(templates) if shots.mixed else query.template
            if example.index in used or self._ask_the_same(example.fields, query.item):
                continue
            if not template.needs <= example.fields.keys():
                continue
            used.add(example.index)
            style = query.style
            if shots.mixed or style is None:
                style = self._draw_style(draws, example.fields)
            if "options" not in example.fields:
                style = None
            exemplar = Exemplar(*prompts.fill(template, example.fields, style))
            if exemplar.input != query.text:
                found.append(exemplar)
        return found

    def _own_exemplars(self, draws: Draws, query: _Query) -> list[Exemplar]:
        """Draw from the exemplars that the example brings along (Natural Instructions)."""
        own = [e for e in query.item["exemplars"] if not self._ask_the_same(e, query.item)]
        chosen = draws.sample(own, min(_OWN_EXEMPLARS, len(own)))
        return [Exemplar(*prompts.fill(query.template, e, query.style)) for e in chosen]

    def _draw_shots(self, draws: Draws) -> _Shots:
        shots = self.form.shots
        if shots == "multi":
            return _Shots(1 + draws.below(_MOST_SHOTS), mixed=False)
        if shots in ("drawn", "alike"):
            mixed = shots == "drawn" and draws.below(2) == 1
            hits = [draws.below(prompts.PER_GROUP) == 0 for _ in range(_CANDIDATES)]
            return _Shots(_MIXED_SHOTS, mixed) if mixed else _Shots(max(sum(hits), 1), mixed)
        return _Shots(int(shots), mixed=False)

    def _pool(self) -> list[_PoolExample]:
        """Return the training examples that exemplars are drawn from, chosen by a hash."""
        if self._stored_pool is None:
            numbered = itertools.starmap(_PoolExample, enumerate(self.items("train")))
            self._stored_pool = heapq.nsmallest(
                _POOL_SIZE, numbered, key=lambda example: hash64("pool", example.index)
            )
        return self._stored_pool


def _holdout_name(cluster: str) -> str:
    """Return the name by which a cluster counts as data that can be held out."""
    return f"FLAN's cluster {cluster}"


def register_flan_task(name: str, source: FlanSource) -> None:
    """Register a source as a task with the metrics of its data set."""
    register_task(name, source, metric_fns=source.dataset.metrics)


def _json_list(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)
