"""MXFP4, in which GPT-OSS is released: experts' weights of 4 bits, with a scale for each 32.

The format is that of the OCP Microscaling specification 1.0. A weight is a tensor of blocks, uint8,
in which a byte holds two numbers (E2M1, the first in its lower half), and one of scales, uint8, the
exponents of the blocks' powers of two (E8M0). Both have the rows of the transposed weight:

    <name>_blocks (experts, out, in / 32, 16)    <name>_scales (experts, out, in / 32)

give <name> (experts, in, out). All values are exact in bfloat16.

Shape suffixes: E experts, O outputs, G blocks of an output, I inputs.
"""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_files import Index, Tensor

BLOCKS, SCALES = "_blocks", "_scales"
_BLOCK = 32  # Weights with one scale.
_SCALE_BIAS = 127
_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
_VALUES = np.concatenate([_E2M1, -_E2M1])
# The two numbers of each byte.
_PAIRS = np.stack([_VALUES[np.arange(256) & 15], _VALUES[np.arange(256) >> 4]], axis=-1)


def dequantize(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the same tensors with one in bfloat16 for each pair of blocks and scales.

    Args:
        tensors: The tensors of a folder, not read yet.
        where: What messages call the folder.

    Raises:
        UserError: Blocks without scales or the reverse, or shapes that do not fit together; or
            another tensor of bytes.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype != np.uint8:
            result[name] = tensor
            continue
        base = name.removesuffix(BLOCKS).removesuffix(SCALES)
        blocks, scales = tensors.get(base + BLOCKS), tensors.get(base + SCALES)
        if blocks is None or scales is None or {blocks.dtype, scales.dtype} != {tensor.dtype}:
            raise UserError(
                f"{where}: {name} holds bytes; expected blocks and scales of MXFP4, named "
                f"{base}{BLOCKS} and {base}{SCALES}"
            )
        if len(scales.shape) != 3 or blocks.shape != (*scales.shape, _BLOCK // 2):
            raise UserError(
                f"{where}: {base} in MXFP4 has blocks of shape {blocks.shape} and scales of shape "
                f"{scales.shape}; expected (experts, outputs, inputs / 32, 16) and (experts, "
                "outputs, inputs / 32)"
            )
        n_experts, n_outputs, n_blocks = scales.shape
        shape = (n_experts, n_blocks * _BLOCK, n_outputs)
        read = functools.partial(_read, blocks, scales, shape)
        result[base] = Tensor(shape, np.dtype(jnp.bfloat16), read)
    return result


def _read(blocks: Tensor, scales: Tensor, shape: tuple[int, ...], index: Index) -> np.ndarray:
    """Read a part of a weight, one expert at a time, which bounds the memory for it."""
    experts, inputs, outputs = index
    assert isinstance(experts, slice) and isinstance(inputs, slice)
    first, stop, step = inputs.indices(shape[1])
    wanted_G = slice(first // _BLOCK, -(-stop // _BLOCK))
    within = slice(first - wanted_G.start * _BLOCK, stop - wanted_G.start * _BLOCK, step)
    of_experts = []
    for expert in range(*experts.indices(shape[0])):
        one = slice(expert, expert + 1)
        scales_OxG = scales.read((one, outputs, wanted_G))[0]
        blocks_OxGx16 = blocks.read((one, outputs, wanted_G, slice(None)))[0]
        exponents_OxG = scales_OxG.astype(np.int32) - _SCALE_BIAS
        values = np.ldexp(_PAIRS[blocks_OxGx16], exponents_OxG[..., None, None])
        values_OxI = values.reshape(len(scales_OxG), -1)[:, within]
        of_experts.append(values_OxI.T.astype(jnp.bfloat16))
    if not of_experts:
        return np.zeros(shape, jnp.bfloat16)[index]
    return np.stack(of_experts)
