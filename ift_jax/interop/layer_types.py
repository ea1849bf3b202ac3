"""Which layers have a sliding window: `layer_types` and its forerunners in `config.json`."""

from typing import Any, NamedTuple

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields

LOCAL = "sliding_attention"
GLOBAL = "full_attention"


class SlidingWindows(NamedTuple):
    """The two fields of our config that say which layers are local, and what those see.

    Attributes:
        sliding_window: The tokens that a local layer sees; 0: every layer is global.
        global_every: Every n-th layer is global; 0: none is.
    """

    sliding_window: int
    global_every: int


def read_layer_types(fields: ConfigFields, window: int, local: list[bool]) -> SlidingWindows:
    """Return the windows of a model's layers.

    Args:
        fields: The whole config.json; its `layer_types`, if given, overrides `local`.
        window: The tokens that a local layer sees; 0: none is given.
        local: Whether each layer is local, by the family's rule.

    Raises:
        UserError: The layers do not follow a pattern in which every n-th one is global.
    """
    names = fields.get("layer_types", None)
    if names is not None:
        if len(names) != len(local) or not set(names) <= {LOCAL, GLOBAL}:
            raise fields.refusal("layer_types", names, f"{len(local)} of {LOCAL}, {GLOBAL}")
        local = [name == LOCAL for name in names]
        if any(local) and not window:
            raise fields.refusal(
                "sliding_window", window, "a number, as layer_types has local layers"
            )
    if not any(local):
        return SlidingWindows(0, 0)
    if all(local):
        return SlidingWindows(window, 0)
    global_every = local.index(False) + 1
    if local != [not is_global(i, global_every) for i in range(len(local))]:
        raise fields.refusal("layer_types", names or local, "every n-th layer to be global")
    return SlidingWindows(window, global_every)


def is_global(layer: int, global_every: int) -> bool:
    """Whether a layer (counted from 0) is global when every n-th one is."""
    return (layer + 1) % global_every == 0


def write_layer_types(config: DecoderConfig) -> dict[str, Any]:
    """Return the field `layer_types`."""
    global_every = config.global_every or config.n_layers + 1
    names = []
    for layer in range(config.n_layers):
        is_local = config.sliding_window > 0 and not is_global(layer, global_every)
        names.append(LOCAL if is_local else GLOBAL)
    return {"layer_types": names}
