"""A model as the rest of the code sees it: pure functions over a nested dict of arrays.

Flax NNX modules define the layers; here they are split into a graph definition, which a
`Model` holds, and plain parameters, which it never holds.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx, traverse_util

from ift_jax.config.schema import Config, DecoderConfig, LoraConfig, ModelConfig
from ift_jax.errors import UserError
from ift_jax.models import lora as lora_lib
from ift_jax.models.decoder import Decoder
from ift_jax.models.encoder_decoder import EncoderDecoder
from ift_jax.models.layers import MAX_WEIGHTS

Params = dict[Any, Any]
NO_LORA = LoraConfig()
VOCAB_MULTIPLE = 128  # So that the vocabulary divides over tensor shards and vector lanes.


class Model:
    """The graph definition of one architecture; hashed by identity, so a static jit argument.

    `shapes` is like the parameters, a `jax.ShapeDtypeStruct` for each array, and `logical_axes` a
    tuple of names for each (`ift_jax.sharding.rules`); stacked layers have "layers" in front.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        stacked: bool = True,
        lora: LoraConfig = NO_LORA,
        freeze: str = "",
    ):
        if config.vocab_size <= 0:
            raise ValueError("a model needs its vocab_size: resolve 0 from the tokenizer first")
        self.config, self.lora, self._freeze = config, lora, freeze
        self._stacked = stacked
        self._graphdef, state = nnx.split(nnx.eval_shape(lambda: self._make(jax.random.key(0))))
        plain = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # noqa: E731
        self.shapes: Params = jax.tree.map(plain, nnx.to_pure_dict(state))
        self.n_params = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.shapes))
        if freeze and not all(self.split(self.shapes)):
            raise UserError(
                f"config.optimizer.freeze: {freeze!r} matches no parameter, or all; "
                'paths are like "embedding" and "layers.mlp.up.weight"'
            )
        axes = {path: param.get_metadata()["axes"] for path, param in nnx.to_flat_state(state)}
        self.logical_axes: Params = traverse_util.unflatten_dict(
            {
                path: ("layers", *own) if stacked and "layers" in path else own
                for path, own in axes.items()
            }
        )

    def _make(self, key: jax.Array) -> Decoder | EncoderDecoder:
        keys = iter(jax.random.split(key, MAX_WEIGHTS))
        kind: Any = Decoder if isinstance(self.config, DecoderConfig) else EncoderDecoder
        module = kind(self.config, keys=keys, stacked=self._stacked)
        if self.lora.rank:
            lora_lib.attach(module, self.lora, key)
        return module

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters; pure, so `jax.jit` it with the shardings that are wanted."""
        params = nnx.to_pure_dict(nnx.state(self._make(key)))
        # What came of a Python number is weakly typed until the first step, which would be compiled
        # once more for what it made itself.
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), params)

    def split(self, tree: Params) -> tuple[Params, Params]:
        """The trained and the frozen part of a tree like the parameters; `join` undoes it.

        With LoRA the adapters are trained, else all that the pattern of `freeze` is not found in.
        """
        parts: tuple[Params, Params] = ({}, {})
        for path, leaf in traverse_util.flatten_dict(tree).items():
            parts[not self._is_trained(path)][path] = leaf
        trained, frozen = map(traverse_util.unflatten_dict, parts)
        return trained, frozen

    def frozen_form(self, frozen: Params) -> Params:
        """Frozen parameters as a run holds them: matrices in the compute dtype.

        Their products are in it anyway; only what is trained needs the bits that updates add up in.
        """
        axes = traverse_util.flatten_dict(self.logical_axes)
        return traverse_util.unflatten_dict(
            {
                path: leaf.astype(self.config.dtype) if is_matrix(axes[path]) else leaf
                for path, leaf in traverse_util.flatten_dict(frozen).items()
            }
        )

    def _is_trained(self, path: tuple[Any, ...]) -> bool:
        if self.lora.rank:
            return path[-1] in lora_lib.NAMES
        return not (self._freeze and re.search(self._freeze, ".".join(map(str, path))))

    def module(self, params: Params) -> Decoder | EncoderDecoder:
        """The module that holds these parameters; for use inside a traced function."""
        return nnx.merge(self._graphdef, nnx.State(params))

    def hidden(
        self, params: Params, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Final, normalised states where the loss is taken: BxLxD in the config's dtype.

        The batch is of `ift_jax.data.batches`: a decoder's `tokens`, `segment_ids`, `positions`
        and, if given, `prefix_mask`; an encoder-decoder's three with `encoder_` and with
        `decoder_` before them (`decoder_tokens` already shifted); with dropout, `row_ids`.
        """
        return self.module(params).hidden(batch, dropout_key)

    def head(self, params: Params) -> tuple[jax.Array, float]:
        """The output projection DxV, float32, and the soft cap of the logits (0: none)."""
        softcap = getattr(self.config, "final_softcap", 0.0)
        return params["embedding"].T if self.config.tied_embedding else params["head"], softcap

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Float32 logits of final states; the product is in the states' dtype."""
        w_DxV, softcap = self.head(params)
        z = jnp.matmul(hidden, w_DxV.astype(hidden.dtype), preferred_element_type=jnp.float32)
        return softcap * jnp.tanh(z / softcap) if softcap else z

    @functools.cached_property
    def unrolled(self) -> "Model":
        """The model for decoding: a list of layers in place of the stack, its head untied."""
        return Model(dataclasses.replace(self.config, tied_embedding=False), stacked=False)

    @functools.partial(jax.jit, static_argnums=0)
    def unstack(self, params: Params) -> Params:
        """The parameters of `unrolled`: a copy in which each layer has arrays of its own.

        The matrices are in the compute dtype and a tied head is a transposed copy. Decoding
        reads every weight for every token; so laid out, it was measured twice as fast on CPU.
        """
        apart: Params = {}
        params = lora_lib.merge(params, self.lora)
        for path, leaf in traverse_util.flatten_dict(params).items():
            if "layers" in path:
                at = path.index("layers") + 1
                apart |= {(*path[:at], i, *path[at:]): leaf[i] for i in range(leaf.shape[0])}
            else:
                apart[path] = leaf
        c = self.config
        if c.tied_embedding:
            # The scale of T5's tied head goes from the hidden states into the copy.
            scale = 1.0 if isinstance(c, DecoderConfig) else c.d_model**-0.5
            apart["head",] = params["embedding"].T * scale
        for path, axes in traverse_util.flatten_dict(self.unrolled.logical_axes).items():
            if is_matrix(axes):
                apart[path] = apart[path].astype(c.dtype)
        return traverse_util.unflatten_dict(apart)

    def flops_per_token(
        self,
        lengths: npt.ArrayLike,
        trained_tokens: npt.ArrayLike,
        encoder_lengths: npt.ArrayLike = 0,
    ) -> float:
        """Model FLOPs of training (forward and backward) per token of such examples.

        Of each example: its tokens (of an encoder-decoder: those of the decoder part), those of
        them that carry loss, those of the encoder part; the FLOPs are divided by all of them.
        Counted: 6 for each parameter of a matrix product and token that it is applied to (4 where
        it is frozen), the head at the trained tokens only, and 12 * heads * head_dim for each pair
        of a query and a key that it sees, in each layer. Not counted: what remat computes again,
        padding, untrained positions of the head, embeddings, norms, softmax, the optimizer.
        """
        c, n = self.config, np.asarray(lengths, np.float64)
        m = np.asarray(encoder_lengths, np.float64)
        pair = 12.0 * c.n_heads * c.head_dim
        of_head = ("embedding" if c.tied_embedding else "head",)
        head = self._flops_each(of_head) * c.d_model * c.vocab_size
        head *= np.sum(trained_tokens, dtype=np.float64)
        if isinstance(c, DecoderConfig):
            module = self.module(self.shapes)
            assert isinstance(module, Decoder)
            near = np.minimum(module.windows()[:, None], n)
            pairs = (near * (near + 1) / 2 + (n - near) * near).sum()
            total = self._flops(lambda path: path[0] == "layers") * n.sum() + head + pair * pairs
            return float(total / max(n.sum(), 1.0))

        def reads_encoder(path: tuple[str, ...]) -> bool:
            return path[0] == "encoder" or ("cross" in path and bool({"key", "value"} & set(path)))

        on_encoder = self._flops(reads_encoder)
        on_decoder = self._flops(lambda path: path[0] == "decoder" and not reads_encoder(path))
        pairs = c.n_encoder_layers * (m * m).sum()
        pairs += c.n_decoder_layers * (n * (n + 1) / 2 + n * m).sum()
        total = on_encoder * m.sum() + on_decoder * n.sum() + head + pair * pairs
        return float(total / max(n.sum() + m.sum(), 1.0))

    def _flops(self, chosen: Callable[[tuple[str, ...]], bool]) -> float:
        """Of the products with the chosen matrices, per token."""
        shapes = traverse_util.flatten_dict(self.shapes)
        axes = traverse_util.flatten_dict(self.logical_axes)
        paths = [path for path in axes if chosen(path) and is_matrix(axes[path])]
        return sum(self._flops_each(path) * float(np.prod(shapes[path].shape)) for path in paths)

    def _flops_each(self, path: tuple[str, ...]) -> float:
        # Forward, by the input, and by the weight.
        return 6.0 if self._is_trained(path) else 4.0


def join(trained: Params, frozen: Params) -> Params:
    """The one tree that `Model.split` cut."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def is_matrix(axes: tuple[str | None, ...]) -> bool:
    """Whether these are the axes of a matrix that is used in products (or lookups) alone."""
    return len([name for name in axes if name != "layers"]) == 2 and "relative_buckets" not in axes


def resolve_vocab(config: ModelConfig, tokenizer_size: int) -> ModelConfig:
    """The config with `vocab_size` 0 replaced by the tokenizer's, rounded up to 128s.

    Raises:
        UserError: a given vocabulary is smaller than the tokenizer's.
    """
    vocab_size = config.vocab_size or -(-tokenizer_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    if vocab_size < tokenizer_size:
        raise UserError(
            "config.model.vocab_size: expected at least the tokenizer's "
            f"{tokenizer_size}; got {vocab_size}"
        )
    return dataclasses.replace(config, vocab_size=vocab_size)


def build_model(config: ModelConfig) -> Model:
    """The model of a config whose vocab_size is resolved."""
    return Model(config)


def trained_model(config: Config) -> Model:
    """The model as the run trains it: with its adapters, and what is frozen."""
    return Model(config.model, lora=config.lora, freeze=config.optimizer.freeze)
