"""What the tensors of a model family are called in a Hugging Face folder."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class LayerNames:
    """The names of one stack of layers.

    Attributes:
        prefix: What precedes the number of a layer: "model.layers".
        modules: Our module inside a layer -> theirs: "attention.query" -> "self_attn.q_proj".
            Weights and biases are called `weight` and `bias` on both sides; the `scale` of our
            norms is called `weight` there. Modules of ours that have the same name there are
            fused in one tensor, which holds their rows in this order.
    """

    prefix: str
    modules: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """The names of all tensors of a model.

    Attributes:
        stacks: The path of a stack of layers in our parameters ("layers", "encoder.layers") -> the
            names in it.
        outside: The path of a parameter outside the layers -> the whole name of its tensor.
        copies: Tensors that some folders hold besides -> the tensor that each repeats.
        may_be_omitted: Tensors that a folder may leave out if they repeat the one in `copies`.
        ignored_endings: Endings of the names of tensors that old releases hold and no model reads.
    """

    stacks: Mapping[str, LayerNames]
    outside: Mapping[str, str]
    copies: Mapping[str, str]
    may_be_omitted: frozenset[str] = frozenset()
    ignored_endings: tuple[str, ...] = ()
