"""The SeqIO source of T0: rows of a data set, from local files or Hugging Face, under a template.

Local files are `<root>/<dataset>/[<subset>/]<split>.jsonl[.gz]` or `.parquet`, with the fields of
the Hugging Face data set (labels as numbers).
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.dataset_rows import PlacedRow
from ift_jax.sources.hugging_face import HubRows
from tasks.t0 import promptsource
from tasks.t0.promptsource import Template

Row = Mapping[str, Any]


class PromptedSource(PythonDataSource):
    """The rows of a data set under one template: `inputs`, `targets` and `references`.

    Some rows are left out: rows of which the template makes nothing, rows whose label is -1, which
    means none, and, for rank classification, rows whose target is not among the answers. (T0
    counts the last ones as wrong.) `num_input_examples` counts all rows, as that of T0 does.

    Args:
        root: The folder of local files; "" for none.
        dataset: The name of the data set at Hugging Face.
        subset: Its configuration; "" for none.
        template: The prompt.
        splits: Our name of a split -> the data set's name.
        ranked: Whether the examples are for rank classification. Their records have `choices`, a
            JSON list of the answers.

    Attributes:
        template: The prompt.
        group: The name that tasks of the same data set share in reports of scores.
    """

    def __init__(
        self,
        root: str,
        dataset: str,
        subset: str,
        template: Template,
        splits: Mapping[str, str],
        *,
        ranked: bool = False,
    ) -> None:
        self.template = template
        self.group = f"{dataset}_{subset}" if subset else dataset
        self._rows = HubRows(root, dataset, subset)
        self._dataset = dataset
        self._subset = subset
        self._published = dict(splits)
        self._ranked = ranked
        super().__init__(self._published)

    @property
    def fields(self) -> tuple[str, ...]:
        fields = ("inputs", "targets", "references")
        return (*fields, "choices") if self._ranked else fields

    def files(self, split: str) -> list[str]:
        return self._rows.files(self._published[split])

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({self._rows.dataset})

    def options(self, split: str) -> Any:
        template = self.template
        place = [self._dataset, self._subset, self._published[split], self._ranked]
        return [*place, template.name, template.jinja, template.answer_choices]

    def items(self, split: str) -> Iterator[PlacedRow]:
        self.check_split(split)
        return self._rows.read(self._published[split])

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        if self.files(split):
            return self._rows.count(self._published[split])
        return super().num_input_examples(split)

    def numbered_records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the records of a shard, each with the number of its row."""
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            record = self._record(item, index, seed)
            if record is not None:
                yield index, record

    def render(self, item: PlacedRow, split: str, index: int, seed: int) -> dict[str, str]:
        record = self._record(item, index, seed)
        if record is None:
            place, _ = item
            raise UserError(f"{place}: template {self.template.name!r} makes nothing of this row")
        return record

    def _record(self, item: PlacedRow, index: int, seed: int) -> dict[str, str] | None:
        """Return the record of a row, None if the row is left out."""
        place, row = item
        if row.get("label") == -1:
            return None
        try:
            return self._apply_template(row, index, seed)
        except promptsource.RENDERING_ERRORS as error:
            reason = promptsource.reason(error)
            raise UserError(f"{place}: template {self.template.name!r}: {reason}") from None

    def _apply_template(self, row: Row, index: int, seed: int) -> dict[str, str] | None:
        missing = sorted(self._variables - set(row))
        if missing:
            raise ValueError(f"it reads {missing[0]!r}; the row has: {', '.join(row)}")
        name = f"{self._dataset}/{self._subset}/{self.template.name}"
        pair = promptsource.apply(self.template, row, Draws(seed, name, index))
        choices = []
        if self._ranked:
            # A new stream of the same draws, so that the answers are those of the prompt.
            choices = promptsource.answer_choices(self.template, row, Draws(seed, name, index))
        if pair is None:
            return None
        text, target = pair
        if self._ranked and target not in choices:
            return None
        references = json.dumps([target], ensure_ascii=False)
        record = {"inputs": text, "targets": target, "references": references}
        if self._ranked:
            record["choices"] = json.dumps(choices, ensure_ascii=False)
        return record

    @functools.cached_property
    def _variables(self) -> set[str]:
        return promptsource.variables(self.template)
