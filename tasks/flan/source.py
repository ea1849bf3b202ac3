"""SeqIO sources of FLAN: rows from local files or TFDS, prompts from templates."""

import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.dataset_rows import PlacedRow
from ift_jax.sources.register import register_task
from ift_jax.sources.tfds import TfdsRows
from tasks.flan import prompts as prompts
from tasks.flan.dataset import VALIDATION, Dataset, Fields, Part
from tasks.flan.datasets import CLUSTERS, excluded_with

_VERSION = 1  # Raised when the readers' or templates' code changes the text that they make.
_CANDIDATES = 25  # The Collection draws so many exemplars and keeps those of the same template.
_MULTI = 16
_POOL = 4096  # Training examples that exemplars are drawn from, chosen by a hash: memory.


class Rows(TfdsRows):
    """Rows of a dataset as dicts.

    They come from `<root>/<dataset>/[<config>/]<split>.jsonl`, `.jsonl.gz` or `.parquet` where
    that folder exists, else from TFDS: in `<root>/tensorflow_datasets` or its default folder.
    """

    @property
    def _folder(self) -> str:
        """The folder of local copies; "" without a root."""
        return os.path.join(self.root, *self.dataset.split("/")) if self.root else ""

    def path(self, split: str) -> str:
        """The local file of a split; "" if there is no folder of the dataset."""
        path = super().path(split)
        if not path and self._folder and os.path.isdir(self._folder):
            raise UserError(
                f"{self.name}: {self._folder} holds no {split}.jsonl, .jsonl.gz or .parquet"
            )
        return path

    def read_part(self, part: Part) -> Iterator[PlacedRow]:
        """Yields the place and content of each row of a part."""
        start, stop = part.start, part.stop
        if start < 0 or (stop is not None and stop < 0):
            start, stop, _ = slice(start, stop).indices(self.count(part.split))
        return self.read(part.split, start, stop)

    @property
    def available(self) -> bool:
        """Whether the data is here, as far as a look at folders tells."""
        if self._folder and os.path.isdir(self._folder):
            return True
        folders = [os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")]
        folders += [os.path.join(self.root, "tensorflow_datasets")] if self.root else []
        return any(
            os.path.isdir(os.path.join(os.path.expanduser(folder), *self.name.split("/")))
            for folder in folders
        )


@dataclasses.dataclass(frozen=True)
class Form:
    """How the examples of a dataset are put.

    Attributes:
      options: "block" (FLAN 2021), "styled" (the Collection) or "none".
      shots: exemplars of the same template: a number, "multi" (1 to 16), or "drawn": those of
        25 that happen to have the query's template, or for every other query five exemplars
        with a template each (the Collection's `x_shot` and `template_mix_five_shot`).
      template: only this one of the ten; -1: one drawn for each example.
      ranked: for rank classification: records have `choices` (a JSON list of all answers).
      max_characters: exemplars are left out from the last where the prompt would become
        longer. (The originals count 960 and 1,920 tokens; a task knows no tokenizer, and
        English has about four characters a token.)
    """

    options: str = "block"
    shots: int | str = 0
    template: int = -1
    ranked: bool = False
    max_characters: int = 4 * 960


class FlanSource(PythonDataSource):
    """A dataset of FLAN in one form.

    Training draws among all ten templates; other splits among those that are not inverted, as
    their metric is that of the dataset's own question.
    """

    def __init__(self, dataset: Dataset, root: str, form: Form) -> None:
        self.dataset, self.form = dataset, form
        self._root = root
        self._pool: list[tuple[int, Fields]] | None = None
        splits = dataset.splits
        super().__init__([s for s in splits if s != "train"] if form.ranked else splits)

    @property
    def group(self) -> str:
        """What a task of one template shares with those of the dataset's other templates."""
        return self.dataset.name if self.form.template >= 0 else ""

    @property
    def identity(self) -> Any:
        """What tells the source from others, without a look at any file."""
        return self.dataset.name, self.dataset.tfds, self._root, self.form

    @property
    def fields(self) -> tuple[str, ...]:
        more = ("references",) if self.dataset.references else ()
        return ("inputs", "targets", *more, *(("choices",) if self.form.ranked else ()))

    @property
    def datasets(self) -> frozenset[str]:
        parts, cluster = self.dataset.splits.values(), self.dataset.cluster
        names = {self.rows(part).dataset for part in parts}
        if "test" in self.dataset.splits and len({part.split for part in parts}) == 1:
            names = set()  # Blocks of a corpus that others have other blocks of.
        return frozenset(names | ({_cluster(cluster)} if cluster in CLUSTERS else set()))

    @property
    def holds_out(self) -> frozenset[str]:
        cluster = self.dataset.cluster
        close = excluded_with(cluster) if cluster in CLUSTERS else ()
        return self.datasets.union(map(_cluster, close))

    def rows(self, part: Part) -> Rows:
        """The rows that a part is of."""
        return (self.dataset.open or Rows)(self._root, part.tfds or self.dataset.tfds)

    def files(self, split: str) -> list[str]:
        paths = [path for part in self._parts(split) for path in self.rows(part).files(part.split)]
        return list(dict.fromkeys(paths))

    def options(self, split: str) -> Any:
        parts = [
            [part.tfds or self.dataset.tfds, part.split, part.start, part.stop]
            for part in self._parts(split)
        ]
        return [_VERSION, self.dataset.name, dataclasses.asdict(self.form), parts]

    def fingerprint(self, split: str) -> str:
        identity = [self.rows(part).version(part.split) for part in self._parts(split)]
        templates = [dataclasses.astuple(t) for t in self.templates("train")]
        text = json.dumps([super().fingerprint(split), identity, templates])
        return hashlib.sha256(text.encode()).hexdigest()

    def _parts(self, split: str) -> list[Part]:
        """The parts of the data that determine a split: exemplars are of the training part."""
        splits = dict.fromkeys((split, "train") if self.form.shots else (split,))
        return [self.dataset.splits[s] for s in splits]

    def templates(self, split: str) -> Sequence[prompts.Template]:
        """The templates that the examples of a split may have."""
        group = prompts.groups()[self.dataset.templates]
        if split == "train" or all(template.inverted for template in group):
            return group
        return [template for template in group if not template.inverted]

    @functools.cached_property
    def _asked(self) -> frozenset[str]:
        """The fields that make the question of an example, whatever the answer."""
        group = prompts.groups()[self.dataset.templates]
        plain = [template.asks for template in group if not template.inverted]
        answers = {"answer", "answers", "rationale", "response"}
        return frozenset().union(*plain or [t.needs - answers for t in group])

    def _same(self, a: Fields, b: Fields) -> bool:
        """Whether two examples ask the same."""
        return all(a.get(key) == b.get(key) for key in self._asked)

    def items(self, split: str) -> Iterator[Fields]:
        cap = {"train": self.dataset.train_cap, "validation": VALIDATION}.get(split)
        return itertools.islice(self._examples(self.dataset.splits[split]), cap)

    def _examples(self, part: Part) -> Iterator[Fields]:
        for where, row in self.rows(part).read_part(part):
            try:
                yield from self.dataset.read(row)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise UserError(
                    f"{where}: not a row of {self.dataset.tfds} ({type(error).__name__}: {error}; "
                    f"it has: {', '.join(row)})"
                ) from None

    def render(self, item: Fields, split: str, index: int, seed: int) -> dict[str, str]:
        draws = Draws("flan", seed, self.dataset.name, split, index)
        form = self.form
        templates = [t for t in self.templates(split) if t.needs <= item.keys()]
        k = form.template if form.template >= 0 else draws.below(len(templates))
        template = templates[k]
        style = self._style(draws, item)
        text, target = prompts.fill(template, item, style)
        record = {"targets": target}
        if form.shots:
            exemplars = self._exemplars(draws, item, split, index, template, style, text)
            styled = form.options == "styled"
            layout = draws.choice(prompts.LAYOUTS) if styled else prompts.LAYOUT
            text = prompts.fitted(layout, exemplars, text, form.max_characters)
        if self.dataset.references:
            right = item.get("answers", [])
            one = template.inverted or target not in right
            record["references"] = _json([target] if one else right)
        if form.ranked:
            record["choices"] = _json(item["options"])
        return {"inputs": text} | record

    def _style(self, draws: Draws, item: Fields) -> prompts.OptionStyle | None:
        if self.form.options == "none" or "options" not in item:
            return None
        return prompts.PLAIN if self.form.options == "block" else prompts.draw_style(draws)

    def _exemplars(
        self,
        draws: Draws,
        item: Fields,
        split: str,
        index: int,
        template: prompts.Template,
        style: prompts.OptionStyle | None,
        query: str,
    ) -> list[tuple[str, str]]:
        """Different training examples, or of the item's own `exemplars`; none is the query."""
        if "exemplars" in item:  # Natural Instructions: always two.
            own = [e for e in item["exemplars"] if not self._same(e, item)]
            chosen = draws.sample(own, min(2, len(own)))
            return [prompts.fill(template, e, style) for e in chosen]
        if self._pool is None:
            numbered = enumerate(self.items("train"))
            self._pool = heapq.nsmallest(_POOL, numbered, key=lambda i: hash64("pool", i[0]))
        pool, shots, mixed = self._pool, self.form.shots, False
        if shots == "multi":
            shots = 1 + draws.below(_MULTI)
        elif shots == "drawn":
            mixed = draws.below(2) == 1
            same = sum(draws.below(prompts.PER_GROUP) == 0 for _ in range(_CANDIDATES))
            shots = 5 if mixed else max(same, 1)
        used = {index} if split == "train" else set()
        found: list[tuple[str, str]] = []
        templates = self.templates(split)
        for _ in range(4 * int(shots) + 8):
            if len(found) == shots or len(used) >= len(pool):
                break
            k, other = draws.choice(pool)
            shown = draws.choice(templates) if mixed else template
            if k in used or self._same(other, item) or not shown.needs <= other.keys():
                continue
            used.add(k)
            its_style = self._style(draws, other) if mixed or style is None else style
            if "options" not in other:
                its_style = None
            exemplar = prompts.fill(shown, other, its_style)
            if exemplar[0] != query:
                found.append(exemplar)
        return found


def _cluster(name: str) -> str:
    return f"FLAN's cluster {name}"


def register_flan_task(name: str, source: FlanSource) -> None:
    """Register a source as a task with the metrics of its dataset."""
    register_task(name, source, metric_fns=source.dataset.metrics)


def _json(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)
