"""A model as the rest of the code sees it: pure functions over a nested dict of arrays.

Flax NNX modules define the layers. Here a module is split into a graph definition, which a `Model`
holds, and plain parameters, which it never holds.

Shape suffixes: B rows, L positions, D model width, V vocabulary.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx, traverse_util

from ift_jax.config.schema import Config, DecoderConfig, LoraConfig, ModelConfig
from ift_jax.errors import UserError
from ift_jax.models import flops
from ift_jax.models import lora as lora_lib
from ift_jax.models.decoder import Decoder
from ift_jax.models.encoder_decoder import EncoderDecoder
from ift_jax.models.layers import MAX_WEIGHTS

Params = dict[Any, Any]
NO_LORA = LoraConfig()
VOCAB_MULTIPLE = 128  # So that the vocabulary divides over tensor shards and vector lanes.


class Model:
    """The graph definition of one architecture; hashed by identity, so a static jit argument.

    Attributes:
        config: The model's config.
        lora: The config of its adapters; rank 0 means none.
        shapes: A tree like the parameters, with a `jax.ShapeDtypeStruct` for each array.
        logical_axes: A tree like the parameters, with a tuple of names for each array
            (`ift_jax.sharding.rules`). Stacked layers have "layers" in front.
        n_params: How many numbers the parameters hold.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        stacked: bool = True,
        lora: LoraConfig = NO_LORA,
        freeze: str = "",
    ):
        """Trace the module's definition; nothing is computed.

        Args:
            config: The model's config, with its `vocab_size` resolved.
            stacked: Whether layers are stacked for training, or a list for decoding.
            lora: The adapters.
            freeze: A regular expression, searched in the paths of parameters: these are frozen.

        Raises:
            UserError: `freeze` matches no parameter, or all of them.
        """
        if config.vocab_size <= 0:
            raise ValueError("a model needs its vocab_size: resolve 0 from the tokenizer first")
        self.config = config
        self.lora = lora
        self._freeze = freeze
        self._stacked = stacked
        self._graphdef, state = nnx.split(nnx.eval_shape(lambda: self._make(jax.random.key(0))))

        def plain_shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

        self.shapes: Params = jax.tree.map(plain_shape, nnx.to_pure_dict(state))
        self.n_params = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.shapes))
        if freeze and not all(self.split(self.shapes)):
            raise UserError(
                f"config.optimizer.freeze: {freeze!r} matches no parameter, or all; "
                'paths are like "embedding" and "layers.mlp.up.weight"'
            )
        axes = {}
        for path, param in nnx.to_flat_state(state):
            own_axes = param.get_metadata()["axes"]
            axes[path] = ("layers", *own_axes) if stacked and "layers" in path else own_axes
        self.logical_axes: Params = traverse_util.unflatten_dict(axes)

    def _make(self, key: jax.Array) -> Decoder | EncoderDecoder:
        keys = iter(jax.random.split(key, MAX_WEIGHTS))
        module: Decoder | EncoderDecoder
        if isinstance(self.config, DecoderConfig):
            module = Decoder(self.config, keys=keys, stacked=self._stacked)
        else:
            module = EncoderDecoder(self.config, keys=keys, stacked=self._stacked)
        if self.lora.rank:
            lora_lib.attach(module, self.lora, key)
        return module

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters; pure, so that it can be jitted with the shardings wanted."""
        params = nnx.to_pure_dict(nnx.state(self._make(key)))
        # What came from a Python number is weakly typed until the first step, which would then be
        # compiled once more for its own result.
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), params)

    # --- Trained and frozen parameters ---

    def split(self, tree: Params) -> tuple[Params, Params]:
        """Split a tree like the parameters into its trained and its frozen part; `join` undoes it.

        With LoRA only the adapters are trained, else all whose path `freeze` is not found in.
        """
        trained: Params = {}
        frozen: Params = {}
        for path, leaf in traverse_util.flatten_dict(tree).items():
            part = trained if self._is_trained(path) else frozen
            part[path] = leaf
        return traverse_util.unflatten_dict(trained), traverse_util.unflatten_dict(frozen)

    def cast_frozen(self, frozen: Params) -> Params:
        """Frozen parameters as a run holds them: matrices in the compute dtype.

        Their products are in it anyway; only trained parameters need more bits, in which small
        updates add up.
        """
        axes = traverse_util.flatten_dict(self.logical_axes)
        cast = {}
        for path, leaf in traverse_util.flatten_dict(frozen).items():
            cast[path] = leaf.astype(self.config.dtype) if is_matrix(axes[path]) else leaf
        return traverse_util.unflatten_dict(cast)

    def _is_trained(self, path: tuple[Any, ...]) -> bool:
        if self.lora.rank:
            return path[-1] in lora_lib.ADAPTER_NAMES
        return not (self._freeze and re.search(self._freeze, ".".join(map(str, path))))

    # --- Functions of the parameters ---

    def module(self, params: Params) -> Decoder | EncoderDecoder:
        """The module that holds these parameters; for use inside a traced function."""
        return nnx.merge(self._graphdef, nnx.State(params))

    def hidden(
        self, params: Params, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Final, normalized states where the loss is taken: BxLxD in the config's dtype.

        Args:
            params: The parameters.
            batch: Arrays of `ift_jax.data.batches`. A decoder reads `tokens`, `segment_ids`,
                `positions` and, if given, `prefix_mask`; an encoder-decoder reads the first three
                with `encoder_` and with `decoder_` in front (`decoder_tokens` are already
                shifted). With dropout, both read `row_ids`.
            dropout_key: None: no dropout.
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

    # --- Decoding ---

    @functools.cached_property
    def unrolled(self) -> "Model":
        """The model for decoding: a list of layers instead of the stack, its head untied."""
        return Model(dataclasses.replace(self.config, tied_embedding=False), stacked=False)

    @functools.partial(jax.jit, static_argnums=0)
    def unstack(self, params: Params) -> Params:
        """The parameters of `unrolled`: a copy in which each layer has arrays of its own.

        Adapters are merged, matrices are in the compute dtype, and a tied head is a transposed
        copy. Decoding reads every weight for every token; in this layout it was measured to be
        twice as fast on CPU.
        """
        c = self.config
        unstacked: Params = {}
        merged = lora_lib.merge(params, self.lora)
        for path, leaf in traverse_util.flatten_dict(merged).items():
            if "layers" not in path:
                unstacked[path] = leaf
                continue
            at = path.index("layers") + 1
            for layer in range(leaf.shape[0]):
                unstacked[(*path[:at], layer, *path[at:])] = leaf[layer]
        if c.tied_embedding:
            # T5 scales the hidden states before its tied head; here the copy is scaled instead.
            scale = 1.0 if isinstance(c, DecoderConfig) else c.d_model**-0.5
            unstacked["head",] = merged["embedding"].T * scale
        for path, axes in traverse_util.flatten_dict(self.unrolled.logical_axes).items():
            if is_matrix(axes):
                unstacked[path] = unstacked[path].astype(c.dtype)
        return traverse_util.unflatten_dict(unstacked)

    # --- Cost ---

    def flops_per_token(
        self,
        lengths: npt.ArrayLike,
        trained_tokens: npt.ArrayLike,
        encoder_lengths: npt.ArrayLike = 0,
    ) -> float:
        """Model FLOPs of training (forward and backward) per token of such examples.

        `ift_jax.models.flops` says what is counted, and what the arguments are.
        """
        shapes = traverse_util.flatten_dict(self.shapes)
        matrix_flops = {}
        for path, axes in traverse_util.flatten_dict(self.logical_axes).items():
            if is_matrix(axes):
                trained = self._is_trained(path)
                per_parameter = flops.TRAINED_MATRIX if trained else flops.FROZEN_MATRIX
                matrix_flops[path] = per_parameter * float(np.prod(shapes[path].shape))
        return flops.flops_per_token(
            self.config, matrix_flops, lengths, trained_tokens, encoder_lengths
        )


def join(trained: Params, frozen: Params) -> Params:
    """The one tree that `Model.split` split."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def is_matrix(axes: tuple[str | None, ...]) -> bool:
    """Whether these are the axes of a matrix that is used only in products or lookups."""
    n_own_axes = len([name for name in axes if name != "layers"])
    return n_own_axes == 2 and "relative_buckets" not in axes


def resolve_vocab(config: ModelConfig, tokenizer_size: int) -> ModelConfig:
    """Replace a `vocab_size` of 0 by the tokenizer's, rounded up to a multiple of 128.

    Raises:
        UserError: The config's vocabulary is smaller than the tokenizer's.
    """
    vocab_size = config.vocab_size or -(-tokenizer_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    if vocab_size < tokenizer_size:
        raise UserError(
            "config.model.vocab_size: expected at least the tokenizer's "
            f"{tokenizer_size}; got {vocab_size}"
        )
    return dataclasses.replace(config, vocab_size=vocab_size)


def build_model(config: ModelConfig) -> Model:
    """The model of a config whose `vocab_size` is resolved."""
    return Model(config)


def trained_model(config: Config) -> Model:
    """The model as a run trains it: with its adapters, and with what is frozen."""
    return Model(config.model, lora=config.lora, freeze=config.optimizer.freeze)
