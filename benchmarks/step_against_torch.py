"""The train step against `transformers` on torch: same shapes, same batch, same loss mask.

    python -m benchmarks.step_against_torch --shape llama_135m [--rounds 3] [--steps 5]

All sides are fed one packed batch on the host again and again: forward, backward, clipping by the
global norm, and the optimizer, in float32. `torch` is the model of `transformers` with SDPA and the
fused AdamW; its loss covers all positions, as with `labels=`. `torch_skip` runs the head at the
trained positions only. Needs the extra `reference`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.shapes import DECODERS, T5_SMALL, our_config, torch_model

SIDES = (OURS, "torch", "torch_skip")
T5_SHAPES = ("t5_small", "t5_small_adafactor")  # Rows of 256 tokens in and 64 out.
SHAPES = (*DECODERS, *T5_SHAPES)
LEARNING_RATE = 1e-5


def packed_rows(n_rows: int, example_lengths: list[int], vocab_size: int) -> dict[str, np.ndarray]:
    """Make rows of whole examples, of each of which the last 60% is trained."""
    rng = np.random.default_rng(0)
    shape = (n_rows, sum(example_lengths))
    segments = np.repeat(np.arange(1, len(example_lengths) + 1), example_lengths)
    positions = np.concatenate([np.arange(n) for n in example_lengths])
    trained = np.concatenate([np.arange(n) >= round(0.4 * n) for n in example_lengths])
    return {
        "tokens": rng.integers(3, vocab_size, shape).astype(np.int32),
        "targets": rng.integers(3, vocab_size, shape).astype(np.int32),
        "loss_weights": np.tile(trained, (n_rows, 1)).astype(np.float32),
        "segment_ids": np.tile(segments, (n_rows, 1)).astype(np.int32),
        "positions": np.tile(positions, (n_rows, 1)).astype(np.int32),
        "task_ids": np.zeros(shape, np.int32),
    }


def make_batch(shape: str) -> dict[str, np.ndarray]:
    """Make the batch, in the layout of `ift_jax.data.batches`."""
    if shape in DECODERS:
        return packed_rows(4, [110, 84, 62], DECODERS[shape].vocab_size)
    encoder = packed_rows(8, [150, 106], T5_SMALL.vocab_size)
    decoder = packed_rows(8, [40, 24], T5_SMALL.vocab_size)
    decoder["loss_weights"][:] = 1.0
    encoder_names = ("tokens", "segment_ids", "positions")
    batch = {f"encoder_{name}": encoder[name] for name in encoder_names}
    return batch | {f"decoder_{name}": array for name, array in decoder.items()}


def time_steps(step: Callable[[], float], steps: int) -> dict[str, Any]:
    """Return the median seconds of a step after two that do not count, and the last loss."""
    n_warm_up = 2
    seconds = []
    for i in range(steps + n_warm_up):
        start = time.perf_counter()
        loss = step()
        if i >= n_warm_up:
            seconds.append(time.perf_counter() - start)
    return {"seconds": round(statistics.median(seconds), 4), "loss": round(loss, 4)}


def our_side(shape: str, steps: int) -> dict[str, Any]:
    """Time the step that `ift train` runs."""
    import jax

    from ift_jax.config.schema import Config, MeshConfig, OptimizerConfig
    from ift_jax.models.model import build_model
    from ift_jax.sharding.mesh import make_mesh
    from ift_jax.training.optimizer import make_learning_rate, make_optimizer
    from ift_jax.training.state import init_state
    from ift_jax.training.step import make_train_step

    optimizer = OptimizerConfig(
        name="adafactor" if shape.endswith("adafactor") else "adamw",
        schedule="constant",
        learning_rate=LEARNING_RATE,
    )
    tied = {"tied_embedding": True} if shape in DECODERS else {}
    config = Config(model=our_config(shape, **tied), optimizer=optimizer)
    model = build_model(config.model)
    tx = make_optimizer(config.optimizer, model.logical_axes)
    schedule = make_learning_rate(config.optimizer, 1000)
    batch = make_batch(shape)
    n_rows = len(next(iter(batch.values())))
    batch["row_ids"] = np.arange(n_rows, dtype=np.int32)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        state = jax.jit(lambda: init_state(model, tx, 0, 1))()
        train_step = jax.jit(make_train_step(model, tx, schedule, config, 1), donate_argnums=0)

        def step() -> float:
            nonlocal state
            state, metrics = train_step(state, batch)
            return float(metrics["loss"] / metrics["steps"])

        return time_steps(step, steps)


def torch_side(shape: str, steps: int, skip_untrained: bool) -> dict[str, Any]:
    """Time the full step in torch."""
    import torch

    torch.manual_seed(0)
    model = torch_model(shape)
    model.train()
    optimizer = torch_optimizer(model, shape)
    loss_of_batch = torch_loss(model, make_batch(shape), skip_untrained)

    def step() -> float:
        loss = loss_of_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return time_steps(step, steps)


def torch_optimizer(model: Any, shape: str) -> Any:
    """Return the optimizer of a shape."""
    import torch
    import transformers

    if shape.endswith("adafactor"):
        return transformers.Adafactor(
            model.parameters(), lr=LEARNING_RATE, scale_parameter=True, relative_step=False
        )
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)


def torch_loss(model: Any, batch: dict[str, np.ndarray], skip_untrained: bool) -> Callable[[], Any]:
    """Return a function that computes the loss of a batch."""
    import torch
    import torch.nn.functional as F

    is_decoder = "tokens" in batch
    prefix = "" if is_decoder else "decoder_"
    tensors = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    trained = torch.from_numpy(batch[f"{prefix}loss_weights"] > 0)
    labels = tensors[f"{prefix}targets"].masked_fill(~trained, -100)
    if is_decoder:
        inputs = dict(
            input_ids=tensors["tokens"],
            position_ids=tensors["positions"],
            attention_mask=torch_causal_mask(tensors["segment_ids"]),
            use_cache=False,
        )
    else:
        # transformers masks the keys of cross-attention alike for all queries of a row.
        inputs = dict(
            input_ids=tensors["encoder_tokens"],
            decoder_input_ids=tensors["decoder_tokens"],
            attention_mask=torch.ones_like(tensors["encoder_tokens"]),
            use_cache=False,
        )

    def loss() -> Any:
        if skip_untrained and is_decoder:
            hidden = model.model(**inputs).last_hidden_state[trained]
            return F.cross_entropy(model.lm_head(hidden), labels[trained])
        logits = model(**inputs).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

    return loss


def torch_causal_mask(segment_ids: Any) -> Any:
    """Return the additive mask of packed rows, float32[B, 1, L, L]."""
    import torch

    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    causal = torch.ones(same_segment.shape[1:], dtype=torch.bool).tril()
    visible = same_segment & causal
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, lowest)[:, None]


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama_135m")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        if args.side == OURS:
            result = our_side(args.shape, args.steps)
        else:
            skip_untrained = args.side == "torch_skip"
            result = torch_side(args.shape, args.steps, skip_untrained)
        print(json.dumps(result))
        return
    sides = SIDES if args.shape in DECODERS else SIDES[:2]
    arguments = ["--shape", args.shape, "--steps", str(args.steps)]
    results = run_in_turn("benchmarks.step_against_torch", sides, args.rounds, arguments)
    summary = summarize(results, "seconds", more_is_better=False)
    print(json.dumps({args.shape: summary}, indent=1))


if __name__ == "__main__":
    main()
