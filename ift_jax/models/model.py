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
from ift_jax.models.experts import ROUTER_AXES
from ift_jax.models.layer_stack import unstacked_paths
from ift_jax.models.layers import KEYS_AT_ONCE
from ift_jax.models.quantization import n_weights, quantize
from ift_jax.models.quantized_params import SCALES, VALUES, put_quantized, quantize_projections
from ift_jax.models.router import RouterSums
from ift_jax.sharding.rules import STACK_AXES

Params = dict[Any, Any]
NO_LORA = LoraConfig()
VOCAB_MULTIPLE = 128  # So that the vocabulary divides over tensor shards and vector lanes.


class Model:
    """The graph definition of one architecture; hashed by its configs, so a static jit argument.

    A program that was compiled for a model serves every other model of the same configs, such as
    that of the next command or request in the same process.

    Attributes:
        config: The model's config.
        lora: The config of its adapters; rank 0 means none.
        shapes: A tree like the parameters, with a `jax.ShapeDtypeStruct` for each array. Quantized
            weights are those of a run's state: `init` and `cast_frozen` lead there.
        logical_axes: A tree like the parameters, with a tuple of names for each array
            (`ift_jax.sharding.rules`). Stacked layers have "layers" in front.
        n_params: How many numbers the parameters are; scales of quantized weights do not count.
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
        self._graphdef, state = _definition(config, lora, stacked)

        def plain_shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

        self.shapes: Params = jax.tree.map(plain_shape, nnx.to_pure_dict(state))
        flat_shapes = traverse_util.flatten_dict(self.shapes)
        self.n_params = sum(_n_numbers(path, leaf) for path, leaf in flat_shapes.items())
        if freeze and not all(self.split(self.shapes)):
            which = "no" if self.split(self.shapes)[0] else "every"
            paths = ", ".join(".".join(map(str, path)) for path in flat_shapes)
            raise UserError(
                f"config.optimizer.freeze: {freeze!r} matches {which} parameter; there are {paths}"
            )
        axes = {}
        for path, param in nnx.to_flat_state(state):
            own_axes = param.get_metadata()["axes"]
            axes[path] = ("layers", *own_axes) if stacked and "layers" in path else own_axes
        self.logical_axes: Params = traverse_util.unflatten_dict(axes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._made_from == other._made_from

    def __hash__(self) -> int:
        return hash(self._made_from)

    @property
    def _made_from(self) -> tuple[ModelConfig, LoraConfig, str, bool]:
        return self.config, self.lora, self._freeze, self._stacked

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters; pure, so that it can be jitted with the shardings wanted.

        Nothing is quantized yet; `cast_frozen` does that.
        """
        params = nnx.to_pure_dict(nnx.state(_make(self.config, self.lora, self._stacked, key)))
        # What came from a Python number is weakly typed until the first step, which would then be
        # compiled once more for its own result.
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), params)

    @property
    def fresh_shapes(self) -> Params:
        """The shapes of what `init` returns: those of `shapes`, if nothing is quantized."""
        if self.lora.quantize == "none":
            return self.shapes  # Making the module once more takes as long as the rest of a state.
        return jax.eval_shape(lambda: self.init(jax.random.key(0)))

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
        """Frozen parameters as a run holds them: matrices in the compute dtype, or quantized.

        Their products are in it anyway; only trained parameters need more bits, in which small
        updates add up.
        """
        axes = traverse_util.flatten_dict(self.logical_axes)
        cast = {}
        for path, leaf in traverse_util.flatten_dict(self.quantize_frozen(frozen)).items():
            cast[path] = leaf.astype(self.config.dtype) if is_matrix(axes[path]) else leaf
        return traverse_util.unflatten_dict(cast)

    def quantize_frozen(self, frozen: Params) -> Params:
        """Frozen parameters, or some of them, with the weights quantized that a run quantizes."""
        if self.lora.quantize == "none":
            return frozen
        axes = traverse_util.flatten_dict(self.logical_axes)
        flat = traverse_util.flatten_dict(frozen)
        for path in list(flat):
            if path not in axes:  # A run holds its values and scales instead.
                put_quantized(flat, path, quantize(flat[path], self.lora.quantize))
        return traverse_util.unflatten_dict(flat)

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
        return self.hidden_and_router(params, batch, dropout_key)[0]

    def hidden_and_router(
        self, params: Params, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, RouterSums | None]:
        """The states of `hidden`, and the sums of each layer's router, None without experts."""
        module = self.module(params)
        if self.lora.dropout and dropout_key is not None:
            lora_lib.give_dropout_keys(module, self.lora, dropout_key, batch)
        if isinstance(module, Decoder):
            return module.hidden_and_router(batch, dropout_key)
        return module.hidden(batch, dropout_key), None

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
        kinds = c.layer_kinds() if isinstance(c, DecoderConfig) else ()
        for path, leaf in traverse_util.flatten_dict(merged).items():
            if "layers" not in path:
                unstacked[path] = leaf
                continue
            for i, own_path in enumerate(unstacked_paths(path, leaf.shape[0], kinds)):
                unstacked[own_path] = leaf[i]
        if c.tied_embedding:
            # T5 scales the hidden states before its tied head; here the copy is scaled instead.
            scale = 1.0 if isinstance(c, DecoderConfig) else c.output_scale
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
        c: Any = self.config
        shapes = traverse_util.flatten_dict(self.shapes)
        matrix_flops = {}
        for path, axes in traverse_util.flatten_dict(self.logical_axes).items():
            if is_matrix(axes) or axes[-2:] == ROUTER_AXES or path[-1] == VALUES:
                trained = self._is_trained(path)
                per_parameter = flops.TRAINED_MATRIX if trained else flops.FROZEN_MATRIX
                # A token is multiplied by the weights of its own experts alone.
                part = c.experts_per_token / c.n_experts if "expert" in axes else 1.0
                matrix_flops[path] = per_parameter * part * _n_numbers(path, shapes[path])
        return flops.flops_per_token(
            self.config, matrix_flops, lengths, trained_tokens, encoder_lengths
        )


def _make(
    config: ModelConfig, lora: LoraConfig, stacked: bool, key: jax.Array
) -> Decoder | EncoderDecoder:
    """The module with fresh parameters; nothing is quantized."""
    keys = iter(jax.random.split(key, KEYS_AT_ONCE))
    module: Decoder | EncoderDecoder
    if isinstance(config, DecoderConfig):
        module = Decoder(config, keys=keys, stacked=stacked)
    else:
        module = EncoderDecoder(config, keys=keys, stacked=stacked)
    if lora.rank:
        lora_lib.attach(module, lora, key)
    return module


@functools.lru_cache(maxsize=64)
def _definition(
    config: ModelConfig, lora: LoraConfig, stacked: bool
) -> tuple[nnx.GraphDef[Any], nnx.State[Any, Any]]:
    """The graph definition, and the shapes of the parameters as a run holds them.

    Quantized weights are there if the adapters' config says so. Tracing a module takes 0.1 seconds
    and more, and a command makes the model of the same configs several times.
    """

    def held() -> Decoder | EncoderDecoder:
        module = _make(config, lora, stacked, jax.random.key(0))
        if lora.quantize != "none":
            quantize_projections(module, lora.quantize)
        return module

    return nnx.split(nnx.eval_shape(held))


def join(trained: Params, frozen: Params) -> Params:
    """The one tree that `Model.split` split."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def _n_numbers(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> int:
    """How many numbers of the model a parameter holds."""
    if path[-1] == VALUES:
        return n_weights(leaf)
    return 0 if path[-1] == SCALES else int(np.prod(leaf.shape))


def is_matrix(axes: tuple[str | None, ...]) -> bool:
    """Whether these are the axes of a matrix that is used only in products or lookups.

    A router's weight is none: its products are float32 whatever the compute dtype.
    """
    n_own_axes = len([name for name in axes if name not in STACK_AXES])
    is_other = "relative_buckets" in axes or "conv" in axes or axes[-2:] == ROUTER_AXES
    return n_own_axes == 2 and not is_other


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
