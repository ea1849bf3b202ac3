"""Rows of the datasets that T0 was trained and tested on: local files first, then Hugging Face.

Local files lie under the root as `<dataset>/[<subset>/]<split>.jsonl[.gz]` or `.parquet`, with
the fields that the Hugging Face dataset has (labels as numbers).
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


class PromptedSource(PythonDataSource):
    """The rows of a dataset under one template: `inputs`, `targets`, `references`.

    Rows of which the template makes nothing are left out; `num_input_examples` counts them, as
    T0's does. So are rows whose label is -1, which means none, and, for rank classification, rows
    whose target is not among the answers (T0 counts those as wrong).

    Args:
      root: the folder of local files; "" for none.
      dataset: Hugging Face's name.
      subset: its configuration; "" for none.
      template: the prompt.
      splits: our split -> the dataset's.
      ranked: for rank classification: records have `choices`, a JSON list of the answers.
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
        self._rows = HubRows(root, dataset, subset)
        self._dataset, self._subset = dataset, subset
        self.template, self._places, self._ranked = template, dict(splits), ranked
        self.group = "_".join(filter(None, (dataset, subset)))  # Of its templates' scores.
        super().__init__(self._places)

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets", "references", *(("choices",) if self._ranked else ()))

    def files(self, split: str) -> list[str]:
        return self._rows.files(self._places[split])

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({self._rows.dataset})

    def options(self, split: str) -> Any:
        template = self.template
        place = [self._dataset, self._subset, self._places[split], self._ranked]
        return [*place, template.name, template.jinja, template.answer_choices]

    def items(self, split: str) -> Iterator[PlacedRow]:
        self.check_split(split)
        return self._rows.read(self._places[split])

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        if self.files(split):
            return self._rows.count(self._places[split])
        return super().num_input_examples(split)

    def numbered_records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields a shard's records, each with the number of its row."""
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            record = self._rendered(item, index, seed)
            if record is not None:
                yield index, record

    def render(self, item: PlacedRow, split: str, index: int, seed: int) -> dict[str, str]:
        record = self._rendered(item, index, seed)
        if record is None:
            raise UserError(
                f"{item.place}: template {self.template.name!r} makes nothing of this row"
            )
        return record

    def _rendered(self, item: PlacedRow, index: int, seed: int) -> dict[str, str] | None:
        where, row = item
        if row.get("label") == -1:
            return None
        template, name = self.template, f"{self._dataset}/{self._subset}/{self.template.name}"
        # One stream of draws a use, so that both uses of the choices agree.
        draws = functools.partial(Draws, seed, name, index)
        try:
            missing = sorted(self._variables - set(row))
            if missing:
                raise ValueError(f"it reads {missing[0]!r}; the row has: {', '.join(row)}")
            pair = promptsource.apply(template, row, draws())
            choices = promptsource.answer_choices(template, row, draws()) if self._ranked else []
        except promptsource.RENDERING_ERRORS as error:
            reason = promptsource.reason(error)
            raise UserError(f"{where}: template {template.name!r}: {reason}") from None
        if pair is None or (self._ranked and pair[1] not in choices):
            return None
        references = json.dumps([pair[1]], ensure_ascii=False)
        record = {"inputs": pair[0], "targets": pair[1], "references": references}
        if self._ranked:
            record["choices"] = json.dumps(choices, ensure_ascii=False)
        return record

    @functools.cached_property
    def _variables(self) -> set[str]:
        return promptsource.variables(self.template)
