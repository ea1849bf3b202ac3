"""What the tensors of a model family are called in a Hugging Face folder."""

import dataclasses
from collections.abc import Mapping

EXPERT = "{expert}"  # Stands for the number of an expert in the name of a module.


@dataclasses.dataclass(frozen=True)
class LayerNames:
    """The names of one stack of layers.

    Attributes:
        prefix: What precedes the number of a layer: "model.layers".
        modules: Our module inside a layer -> theirs: "attention.query" -> "self_attn.q_proj".
            Weights and biases are called `weight` and `bias` on both sides; the `scale` of our
            norms is called `weight` there. Modules of ours that have the same name there are
            fused in one tensor, which holds their rows in this order. A name with EXPERT in it is
            that of a module for each expert, whose weights are stacked in ours. A key may also be
            the path of a parameter ("mlp.gate.bias"); the name is then that of the whole tensor,
            which is laid out as ours is.
        interleaved: Those fused tensors in which the columns of our parameters alternate, instead
            of rows that follow each other.
        numbers: The numbers of the stack's layers in the model; empty: from 0 on.
        rows: Our module -> its rows in a fused tensor in which they do not follow each other.
        scalars: Those tensors that have no axes, where our parameter has one of size 1.
    """

    prefix: str
    modules: Mapping[str, str]
    interleaved: frozenset[str] = frozenset()
    numbers: tuple[int, ...] = ()
    rows: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    scalars: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """The names of all tensors of a model.

    Attributes:
        stacks: The path of a stack of layers in our parameters ("layers", "encoder.layers"; where
            there are layers of several kinds, "layers.linear") -> the names in it.
        outside: The path of a parameter outside the layers -> the whole name of its tensor.
        copies: Tensors that some folders hold besides -> the tensor that each repeats.
        may_be_omitted: Tensors that a folder may leave out if they repeat the one in `copies`.
        ignored_beginnings: Beginnings of the names of tensors that no model of the family reads.
        ignored_endings: Endings of the names of tensors that old releases hold and no model reads.
    """

    stacks: Mapping[str, LayerNames]
    outside: Mapping[str, str]
    copies: Mapping[str, str]
    may_be_omitted: frozenset[str] = frozenset()
    ignored_beginnings: tuple[str, ...] = ()
    ignored_endings: tuple[str, ...] = ()
