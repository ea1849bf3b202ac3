"""Small models and examples for the contract tests, and batches of them laid out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig

VOCAB = 40
CONFIGS = {
    "decoder": DecoderConfig(
        vocab_size=VOCAB, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24
    ),
    "encoder_decoder": EncoderDecoderConfig(
        vocab_size=VOCAB, d_model=16, n_encoder_layers=2, n_decoder_layers=2, n_heads=4,
        head_dim=8, d_ff=24,
    ),
}  # fmt: skip


def random_params(model, seed=0):
    """Parameters by numpy: compiling an initialiser takes longer than a test's step."""
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(model.shapes)
    values = [
        (rng.normal(size=leaf.shape) * (0.4 if len(leaf.shape) > 1 else 0.2)).astype(np.float32)
        for leaf in leaves
    ]
    return jax.tree.unflatten(tree, [jnp.asarray(value) for value in values])


@dataclasses.dataclass
class Example:
    """`tokens` and `weights` as in a store; `encoder_tokens` for the encoder-decoder."""

    tokens: np.ndarray
    weights: np.ndarray
    encoder_tokens: np.ndarray
    task: int


def make_examples(lengths, encoder_lengths, seed=0):
    """Examples of these lengths with random ids and weights; the last token is trained."""
    rng = np.random.default_rng(seed)
    examples = []
    for n, m in zip(lengths, encoder_lengths, strict=True):
        weights = rng.choice([0.0, 0.5, 1.0], n).astype(np.float32)
        weights[-1] = 1.0
        tokens, encoder_tokens = rng.integers(1, VOCAB, n), rng.integers(1, VOCAB, m)
        examples.append(Example(tokens, weights, encoder_tokens, len(examples) % 3))
    return examples


def decoder_batch(rows, length):
    """Rows of examples -> a decoder's batch, token by token."""
    names = ("tokens", "targets", "segment_ids", "positions", "task_ids")
    batch = {name: np.zeros((len(rows), length), np.int32) for name in names}
    batch["task_ids"][:] = -1
    batch["loss_weights"] = np.zeros((len(rows), length), np.float32)
    batch["row_ids"] = np.arange(len(rows), dtype=np.int32)
    for r, row in enumerate(rows):
        at = 0
        for segment, example in enumerate(row, start=1):
            for i, token in enumerate(example.tokens):
                batch["tokens"][r, at] = token
                batch["segment_ids"][r, at] = segment
                batch["positions"][r, at] = i
                batch["task_ids"][r, at] = example.task
                if i + 1 < len(example.tokens):
                    batch["targets"][r, at] = example.tokens[i + 1]
                    batch["loss_weights"][r, at] = example.weights[i + 1]
                at += 1
    return batch


def encoder_decoder_batch(rows, length):
    """Rows of examples -> an encoder-decoder's batch; both sides have `length` places."""
    n = len(rows)
    batch = {
        f"{side}_{name}": np.zeros((n, length), np.int32)
        for side in ("encoder", "decoder")
        for name in ("tokens", "segment_ids", "positions")
    }
    batch["decoder_targets"] = np.zeros((n, length), np.int32)
    batch["decoder_task_ids"] = np.full((n, length), -1, np.int32)
    batch["decoder_loss_weights"] = np.zeros((n, length), np.float32)
    batch["row_ids"] = np.arange(n, dtype=np.int32)
    for r, row in enumerate(rows):
        at = {"encoder": 0, "decoder": 0}
        for segment, example in enumerate(row, start=1):
            for side, ids in (("encoder", example.encoder_tokens), ("decoder", example.tokens)):
                for i, token in enumerate(ids):
                    place = (r, at[side])
                    batch[f"{side}_segment_ids"][place] = segment
                    batch[f"{side}_positions"][place] = i
                    if side == "encoder":
                        batch["encoder_tokens"][place] = token
                    else:
                        batch["decoder_tokens"][place] = ids[i - 1] if i else 0
                        batch["decoder_targets"][place] = token
                        batch["decoder_loss_weights"][place] = example.weights[i]
                        batch["decoder_task_ids"][place] = example.task
                    at[side] += 1
    return batch


BATCHES = {"decoder": decoder_batch, "encoder_decoder": encoder_decoder_batch}
