"""The transformers: one decoder-only and one encoder-decoder, made of the same layers.

`model` is what the rest of the code uses; `decoder` and `encoder_decoder` are the architectures.
They are built from `layers`, `embedding`, `attention`, `rope` and `dropout`, and run by
`layer_stack` with the policies of `remat`. `fused_cross_entropy` is the head and the loss, `lora`
the adapters, `flops` the cost.
"""

from ift_jax.models.model import Model, build_model

__all__ = ["Model", "build_model"]
