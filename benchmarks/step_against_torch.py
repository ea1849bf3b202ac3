"""The train step against `transformers` on torch: same shapes, same batch, same loss mask.

    python -m benchmarks.step_against_torch --shape llama_135m [--rounds 3] [--steps 5]

All sides are fed one packed batch on the host again and again: forward, backward, clipping by the
global norm, and the optimizer, in float32. `torch` is the model of `transformers` with SDPA and the
fused AdamW; its loss covers all positions, as with `labels=`. `torch_skip` runs the head at the
trained positions only. `ift_jax_ynnpack`, which only runs if --sides names it, is our step with
XLA's default library of products. Needs the extra `reference`.

`share_of_peak` is the model's FLOPs of the step (`ift_jax.models.flops`: the head at the trained
positions only, for all sides alike) over its time and over the highest rate of a large product that
was measured before, in torch or in JAX.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.shapes import DECODERS, T5_SMALL, our_config, torch_model

SIDES = (OURS, "torch", "torch_skip")
OURS_BY_YNNPACK = f"{OURS}_ynnpack"
T5_SHAPES = ("t5_small", "t5_small_adafactor")  # Rows of 256 tokens in and 64 out.
SHAPES = (*DECODERS, *T5_SHAPES)
LEARNING_RATE = 1e-5
LONG_ROW = [350, 700, 90, 512, 260, 900, 180, 404, 600, 100]  # Examples of a row of 4,096 tokens.


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
    if shape == "long_rows":
        return packed_rows(1, LONG_ROW, DECODERS[shape].vocab_size)
    if shape in DECODERS:
        return packed_rows(4, [110, 84, 62], DECODERS[shape].vocab_size)
    encoder = packed_rows(8, [150, 106], T5_SMALL.vocab_size)
    decoder = packed_rows(8, [40, 24], T5_SMALL.vocab_size)
    decoder["loss_weights"][:] = 1.0
    encoder_names = ("tokens", "segment_ids", "positions")
    batch = {f"encoder_{name}": encoder[name] for name in encoder_names}
    return batch | {f"decoder_{name}": array for name, array in decoder.items()}


def example_counts(segment_ids: np.ndarray, loss_weights: np.ndarray) -> dict[str, list[int]]:
    """Return the tokens of each example of the first row, and how many of them are trained."""
    segments, trained = segment_ids[0], loss_weights[0] > 0
    ids = range(1, segments.max() + 1)
    return {
        "lengths": [int((segments == i).sum()) for i in ids],
        "trained_tokens": [int(trained[segments == i].sum()) for i in ids],
    }


def model_gflops(shape: str) -> float:
    """Return the model's GFLOPs of the step, which are the same for all sides."""
    from ift_jax.models.model import trained_model

    model = trained_model(our_train_config(shape))
    batch = make_batch(shape)
    if shape in DECODERS:
        counts = example_counts(batch["segment_ids"], batch["loss_weights"])
        flops = model.flops_per_token(**counts) * batch["tokens"].size
    else:
        counts = example_counts(batch["decoder_segment_ids"], batch["decoder_loss_weights"])
        encoder_ids = batch["encoder_segment_ids"]
        encoder_lengths = example_counts(encoder_ids, np.zeros(encoder_ids.shape))["lengths"]
        flops = model.flops_per_token(**counts, encoder_lengths=encoder_lengths)
        flops *= batch["encoder_tokens"].size + batch["decoder_tokens"].size
    return round(flops / 1e9, 1)


def time_steps(step: Callable[[], float], steps: int, n_warm_up: int = 2) -> dict[str, Any]:
    """Return the median seconds of a step after some that do not count, and the last loss."""
    seconds = []
    for i in range(steps + n_warm_up):
        start = time.perf_counter()
        loss = step()
        if i >= n_warm_up:
            seconds.append(time.perf_counter() - start)
    return {"seconds": round(statistics.median(seconds), 4), "loss": round(loss, 4)}


def our_train_config(shape: str) -> Any:
    """Return the config of our run."""
    from ift_jax.config.schema import Config, OptimizerConfig

    optimizer = OptimizerConfig(
        name="adafactor" if shape.endswith("adafactor") else "adamw",
        schedule="constant",
        learning_rate=LEARNING_RATE,
    )
    tied = {"tied_embedding": True} if shape in DECODERS else {}
    return Config(model=our_config(shape, **tied), optimizer=optimizer)


def our_side(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time the step that `ift train` runs, or the same with XLA's default library of products."""
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.sharding.mesh import make_mesh

    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        step = our_step(
            our_train_config(shape),
            make_batch(shape),
            by_default_library=args.side == OURS_BY_YNNPACK,
        )
        return time_steps(step.run, args.steps, args.warm_up)


class OurStep(NamedTuple):
    """Our train step on one batch."""

    run: Callable[[], float]  # Takes a step to its end, and returns the loss.
    compiled: Any  # The program.
    model: Any


def our_step(
    config: Any, batch: dict[str, np.ndarray], *, by_default_library: bool = False
) -> OurStep:
    """Compile the step of a config; call it where the mesh is set."""
    import jax

    from ift_jax.models.model import trained_model
    from ift_jax.sharding.product_library import train_options
    from ift_jax.training.optimizer import make_learning_rate, make_optimizer
    from ift_jax.training.state import init_state
    from ift_jax.training.step import make_train_step

    model = trained_model(config)
    trained_axes, _ = model.split(model.logical_axes)
    tx = make_optimizer(config.optimizer, trained_axes)
    schedule = make_learning_rate(config.optimizer, 1000)
    n_rows = len(next(iter(batch.values())))
    batch = batch | {"row_ids": np.arange(n_rows, dtype=np.int32)}
    state = jax.jit(lambda: init_state(model, tx, 0, 1))()
    train_step = jax.jit(
        make_train_step(model, tx, schedule, config, 1),
        donate_argnums=0,
        compiler_options={} if by_default_library else train_options(),
    )
    compiled = train_step.lower(state, batch).compile()

    def run() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        return float(metrics["loss"] / metrics["steps"])

    return OurStep(run, compiled, model)


def torch_side(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time the full step in torch."""
    import torch

    torch.manual_seed(0)
    model = torch_model(shape)
    model.train()
    loss_of_batch = torch_loss(model, make_batch(shape), skip_untrained=args.side == "torch_skip")
    return time_steps(torch_step(model, shape, loss_of_batch), args.steps, args.warm_up)


def torch_step(model: Any, shape: str, loss_of_batch: Callable[[], Any]) -> Callable[[], float]:
    """Return a call that takes a step of the parameters that are trained, and gives the loss."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch_optimizer(trained, shape)

    def step() -> float:
        loss = loss_of_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def torch_optimizer(parameters: list[Any], shape: str) -> Any:
    """Return the optimizer of a shape."""
    import torch
    import transformers

    if shape.endswith("adafactor"):
        return transformers.Adafactor(
            parameters, lr=LEARNING_RATE, scale_parameter=True, relative_step=False
        )
    return torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)


def torch_loss(
    model: Any, batch: dict[str, np.ndarray], skip_untrained: bool, mask: str = "additive"
) -> Callable[[], Any]:
    """Return a function that computes the loss of a batch, on the model's device.

    Args:
        model: The model of `transformers`.
        batch: As `make_batch` makes it.
        skip_untrained: Whether a decoder's head runs at the trained positions only.
        mask: How a decoder gets the mask of packed rows: "additive" or "boolean", of all pairs, or
            "positions", from which `transformers` finds where examples begin.
    """
    import torch
    import torch.nn.functional as F

    is_decoder = "tokens" in batch
    prefix = "" if is_decoder else "decoder_"
    device = next(model.parameters()).device
    tensors = {name: torch.from_numpy(array).long().to(device) for name, array in batch.items()}
    trained = tensors[f"{prefix}loss_weights"] > 0
    labels = tensors[f"{prefix}targets"].masked_fill(~trained, -100)
    if is_decoder:
        visible = None if mask == "positions" else visible_pairs(tensors["segment_ids"])
        inputs = dict(
            input_ids=tensors["tokens"],
            position_ids=tensors["positions"],
            attention_mask=additive(visible) if mask == "additive" else visible,
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


def visible_pairs(segment_ids: Any) -> Any:
    """Return which queries of packed rows attend to which keys, bool[B, 1, L, L]."""
    import torch

    same_segment = segment_ids[:, :, None] == segment_ids[:, None, :]
    causal = torch.ones(same_segment.shape[1:], dtype=torch.bool, device=segment_ids.device).tril()
    return (same_segment & causal)[:, None]


def additive(visible: Any) -> Any:
    """Return a mask that is added to the scores, float32."""
    import torch

    lowest = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, lowest)


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama_135m")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm_up", type=int, default=2, help="steps that do not count")
    every_side = (*SIDES, OURS_BY_YNNPACK)
    parser.add_argument("--sides", choices=every_side, nargs="+", help="those to run")
    parser.add_argument("--side", choices=every_side, help="run one process of it")
    args = parser.parse_args()
    if args.side:
        run_side = our_side if args.side.startswith(OURS) else torch_side
        print(json.dumps(run_side(args.shape, args)))
        return
    sides = args.sides or (SIDES if args.shape in DECODERS else SIDES[:2])
    arguments = ["--shape", args.shape, "--steps", str(args.steps), "--warm_up", str(args.warm_up)]
    results = run_in_turn("benchmarks.step_against_torch", sides, args.rounds, arguments)
    summary = summarize(results, "seconds", more_is_better=False)
    summary["model_gflops"] = model_gflops(args.shape)
    summary["peak_gflops"] = results.peak_gflops
    for side in summary["sides"].values():
        gflops = summary["model_gflops"] / side["median"]
        side["share_of_peak"] = round(gflops / results.peak_gflops, 3)
    print(json.dumps({args.shape: summary}, indent=1))


if __name__ == "__main__":
    main()
