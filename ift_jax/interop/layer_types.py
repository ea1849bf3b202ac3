"""Which layers have a sliding window: `layer_types` and its forerunners in `config.json`."""

from typing import Any, NamedTuple

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.io.typed_fields import list_of, one_of

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
        UserError: The layers do not follow a pattern in which every n-th one is global.
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
