"""What decides how much a turn is trained: the switches and weights of several systems.

| field | read so by |
|---|---|
| `weight` | OpenAI's format for finetuning, and this package |
| `train`, `training`, `train_detail` | axolotl |
| `trainable` | tinker-cookbook |
| `loss`, `loss_scale`, `loss_weight` | ms-swift |
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError, nearest
from ift_jax.text.records import Range
from ift_jax.text.rows import values

SWITCHES = ("weight", "loss_weight", "loss_scale", "loss", "train", "training", "trainable")
RANGES = ("train_detail", "training_detail")
# Names that mean masking to somebody, in a form that this package does not know.
UNKNOWN_SWITCHES = (
    "mask", "masked", "loss_mask", "label_mask", "assistant_mask", "assistant_masks",
    "completion_mask", "no_loss", "ignore_loss",
)  # fmt: skip
_ALL_SWITCHES = frozenset((*SWITCHES, *UNKNOWN_SWITCHES))
MAX_WEIGHT = 1000.0
_MIN_WEIGHT = 1e-6  # A smaller one would be 0 in float32 before long.
_EXPECTED = "a number from 0 to 1,000 (but none between 0 and 0.000001), true or false"


@functools.lru_cache(maxsize=4096)  # The rows of a file have the same few fields.
def meant(name: str) -> str:
    """Return the switch that a row's field of almost its name may mean; "" for none.

    Short names are close to words that mean something else, such as "strain".
    """
    folded = name.casefold()
    if folded in SWITCHES or folded in RANGES:
        return folded
    long_names = [switch for switch in (*SWITCHES, *RANGES) if len(switch) > 5]
    return nearest(folded, long_names, cutoff=0.84)


def weight_of(fields: Mapping[str, Any], place: str) -> float | None:
    """Return the loss weight that a message or a row states: the product of all its switches.

    Returns:
        None if it states none.

    Raises:
        UserError: A switch is neither a boolean nor a sensible number, or is of a form that is not
            known; names the field.
    """
    weight = None
    if fields.keys().isdisjoint(_ALL_SWITCHES):
        return None
    for name in SWITCHES:
        value = fields.get(name)
        if value is not None:
            weight = _number(value, f"{place}.{name}") * (1.0 if weight is None else weight)
    for name in UNKNOWN_SWITCHES:
        if values.has_content(fields.get(name)):
            raise UserError(
                f"{place}.{name}: expected one of {values.listed((*SWITCHES, RANGES[0]))} to say"
                " what is trained; name the field in data.ignore_fields if it means something else"
            )
    return weight


def _number(value: Any, place: str) -> float:
    if not isinstance(value, int | float):  # A boolean is an int.
        raise UserError(f"{place}: expected {_EXPECTED}; {values.found(value)}")
    number = float(value) if abs(value) <= MAX_WEIGHT else math.inf
    if not 0 <= number <= MAX_WEIGHT or 0 < number < _MIN_WEIGHT:
        raise UserError(f"{place}: expected {_EXPECTED}; found {value!r:.40}")
    return number


def ranges_of(fields: Mapping[str, Any], content: str, place: str) -> tuple[Range, ...]:
    """Return the ranges of a message's content that axolotl's `train_detail` lists.

    Its offsets are characters, and `end_offset` is that of the last character.

    Raises:
        UserError: A range is not one of the content.
    """
    name = next((name for name in RANGES if values.has_content(fields.get(name))), None)
    if name is None:
        return ()
    expected = "a list of objects with 'begin_offset', 'end_offset' and 'train'"
    ranges = []
    for i, item in enumerate(values.list_of(fields[name], f"{place}.{name}", expected)):
        where = f"{place}.{name}[{i}]"
        if not isinstance(item, Mapping):
            raise UserError(f"{where}: expected an object, {values.found(item)}")
        begin, end, train = (item.get(key) for key in ("begin_offset", "end_offset", "train"))
        if type(begin) is not int or type(end) is not int or type(train) is not bool:
            raise UserError(f"{where}: expected whole numbers and a boolean; found {dict(item)!r}")
        if not 0 <= begin <= end or begin >= max(len(content), 1):
            raise UserError(
                f"{where}: expected a range of the content's {len(content)} characters, found"
                f" {begin} to {end}"
            )
        ranges.append(Range(begin, min(end + 1, len(content)), train))
    return tuple(ranges)
