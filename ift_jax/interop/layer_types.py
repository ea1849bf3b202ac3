"""Which layers have a sliding window: `layer_types` and its forerunners in `config.json`."""

import dataclasses
from typing import Any, NamedTuple

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.io.typed_fields import list_of, one_of

LOCAL = "sliding_attention"
GLOBAL = "full_attention"


class SlidingWindows(NamedTuple):
    """The fields of our config that say which layers are local, and what those see.

    Attributes:
        sliding_window: The tokens that a local layer sees; 0: every layer is global.
        global_every: Every n-th layer is global; 0: none is, or `layer_pattern` says it.
        layer_pattern: Which layers are local and which global, where `global_every` cannot say it.
    """

    sliding_window: int
    global_every: int
    layer_pattern: str = ""


def read_layer_types(
    fields: ConfigFields, window: int, local: list[bool], *, fixed: bool = False
) -> SlidingWindows:
    """Return the windows of a model's layers.

    Args:
        fields: The whole config.json; its `layer_types`, if given, overrides `local`.
        window: The tokens that a local layer sees; 0: none is given.
        local: Whether each layer is local, by the family's rule.
        fixed: Whether `transformers` follows that rule even where `layer_types` says otherwise.

    Raises:
        UserError: The layers are not those of the model, or local ones have no window.
    """
    names = fields.get("layer_types", list_of(one_of((LOCAL, GLOBAL))))
    if names is not None:
        if len(names) != len(local):
            raise fields.refusal("layer_types", names, f"{len(local)} items, one for each layer")
        if fixed and local != [name == LOCAL for name in names]:
            kind = LOCAL if any(local) else GLOBAL
            raise fields.refusal("layer_types", names, f"{kind} for each layer")
        local = [name == LOCAL for name in names]
    if any(local) and not window:
        raise fields.refusal("sliding_window", None, "a number, as the model has local layers")
    return sliding_windows(window, local)


def sliding_windows(window: int, local: list[bool]) -> SlidingWindows:
    """Return the windows of a model, given whether each layer is local."""
    if not any(local):
        return SlidingWindows(0, 0)
    if all(local):
        return SlidingWindows(window, 0)
    global_every = local.index(False) + 1
    if local == [not is_global(i, global_every) for i in range(len(local))]:
        return SlidingWindows(window, global_every)
    pattern = shortest_pattern("".join("L" if is_local else "G" for is_local in local))
    return SlidingWindows(window, 0, pattern)


def shortest_pattern(letters: str) -> str:
    """Return the shortest text that, repeated, begins with one letter for each layer."""
    n = len(letters)
    starts = (letters[:length] for length in range(1, n + 1))
    return next(start for start in starts if (start * n)[:n] == letters)


def is_global(layer: int, global_every: int) -> bool:
    """Whether a layer (counted from 0) is global when every n-th one is."""
    return (layer + 1) % global_every == 0


def written_layer_types(config: DecoderConfig) -> list[str]:
    """Return the field `layer_types`."""
    return [LOCAL if is_local else GLOBAL for is_local in config.local_layers()]


def write_layer_types(config: DecoderConfig) -> dict[str, Any]:
    """Return the field `layer_types`, as a part of a config.json."""
    return {"layer_types": written_layer_types(config)}


def rope_where_local(config: DecoderConfig) -> DecoderConfig:
    """Return the config of a model in which only layers with a sliding window have RoPE."""
    letters = "".join("R" if is_local else "N" for is_local in config.local_layers())
    pattern = shortest_pattern(letters) if "N" in letters else ""
    return dataclasses.replace(config, rope_layers=pattern)
