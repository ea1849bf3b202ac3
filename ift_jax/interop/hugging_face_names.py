"""One table an architecture: our parameters and the tensors of a Hugging Face folder."""

import dataclasses
import functools
import importlib.resources
import operator
import tomllib
from collections.abc import Iterable
from typing import Any

from flax import traverse_util

from ift_jax.config.schema import DecoderConfig
from ift_jax.models.model import Model, Params

_FILE = importlib.resources.files(__package__) / "hugging_face_names.toml"
_TABLES = tomllib.loads(_FILE.read_text("utf-8"))
# Of each architecture, tensors that some folders hold besides -> the one that they repeat.
COPIES = {name: _TABLES[name]["copies"] for name in ("decoder", "encoder_decoder")}
IGNORED = tuple(_TABLES["ignored"])  # Endings of names.


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays and where it is in a folder."""

    path: str  # Of our parameter, "layers.mlp.up.weight".
    names: tuple[str, ...]  # Their tensors; one a layer, in order, if stacked.
    shape: tuple[int, ...]  # Of ours, with the axis of layers.
    stacked: bool  # Ours has a leading axis of layers.
    transposed: bool  # Theirs are (out, in).

    @property
    def their_shape(self) -> tuple[int, ...]:
        """Of each of their tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape


def table(model: Model) -> list[Entry]:
    """An entry for each parameter of a (stacked) model."""
    config = model.config
    if isinstance(config, DecoderConfig):
        varies = config.norm_placement == "both"
    else:
        varies = config.activation == "relu"
    tables = _TABLES[config.architecture]
    layer = tables["layer"] | (tables["variant"] if varies else {})
    entries = []
    for path, leaf in leaves(model.shapes):
        stack, stacked, below = path.rpartition("layers.")
        if stacked:
            module, _, kind = below.rpartition(".")
            block = f"{stack}block" if stack else "model.layers"
            name = f"{layer[module]}.{'bias' if kind == 'bias' else 'weight'}"
            name = name.format(last=2 if stack == "decoder." else 1)
            names = tuple(f"{block}.{i}.{name}" for i in range(leaf.shape[0]))
        else:
            names = (tables["outside"][path],)
        transposed = path == "head" or path.endswith(".weight")
        entries.append(Entry(path, names, leaf.shape, bool(stacked), transposed))
    return entries


def leaves(tree: Params) -> Iterable[tuple[str, Any]]:
    """The (dotted path, leaf) pairs of nested dicts."""
    return traverse_util.flatten_dict(tree, sep=".").items()


def at(tree: Params, path: str) -> Any:
    """The leaf at a dotted path."""
    return functools.reduce(operator.getitem, path.split("."), tree)
