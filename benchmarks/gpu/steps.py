"""The train step of two shapes in bfloat16, full and with LoRA: ours, or that of `transformers`.

    python -m benchmarks.gpu.steps --side ift_jax|torch [--tiny]

Both sides repeat one packed batch with AdamW, float32 parameters, and products in bfloat16; with
LoRA the frozen weights are bfloat16. `transformers` is measured with each attention that is there:
SDPA with a boolean mask; FlexAttention, and FlashAttention 2 on one flat row, which find the
examples of a row by their positions. Its head runs at all positions, as with `labels=`, and at the
trained ones alone (`trained_only`).

Memory is what the program needs by XLA's account (arguments, results and temporaries), and the most
that torch had allocated.
"""

import argparse
import functools
import importlib.util
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.records import Record, emit, emit_measured
from benchmarks.shapes import PROJECTIONS, our_config, torch_model
from benchmarks.step_against_torch import (
    LEARNING_RATE,
    OurStep,
    example_counts,
    our_step,
    packed_rows,
    time_steps,
    torch_loss,
    torch_step,
)

RANK, ALPHA = 16, 32.0
GIB = 1 << 30
MASKS = {"sdpa": "boolean", "flex_attention": "positions", "flash_attention_2": "positions"}


class Work(NamedTuple):
    """What is measured."""

    shapes: dict[str, int]  # The tokens of a batch of each shape.
    lengths: tuple[int, ...]
    n_steps: int


WORK = Work({"llama_135m": 32_768, "llama_1_7b": 8_192}, (1_024, 4_096), 5)
TINY_WORK = Work({"tiny": 96}, (48,), 1)


def make_batch(n_tokens: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Make rows of three examples each, the last 60% of each of which is trained."""
    first, second = int(0.43 * length), int(0.33 * length)
    lengths = [first, second, length - first - second]
    return packed_rows(n_tokens // length, lengths, vocab_size)


def figures(timed: Record, batch: dict[str, np.ndarray], flops_per_token: float) -> Record:
    """Add the speed in tokens to what `time_steps` returned; MFU needs the peak, which comes later.

    Args:
        timed: What `time_steps` returned.
        batch: The batch of a step.
        flops_per_token: By `ift_jax.models.flops`, for either side.
    """
    n_tokens = int((batch["segment_ids"] > 0).sum())
    rate = n_tokens / timed["seconds"]
    return {
        **timed,
        "tokens_per_second": rate,
        "supervised_tokens_per_second": int(batch["loss_weights"].sum()) / timed["seconds"],
        "model_tflops": flops_per_token * rate / 1e12,
    }


def our_train_config(shape: str, lora: bool) -> Any:
    """Return the config of our run."""
    from ift_jax.config.schema import Config, LoraConfig, OptimizerConfig

    return Config(
        model=our_config(shape, tied_embedding=True, dtype="bfloat16"),
        lora=LoraConfig(rank=RANK, alpha=ALPHA) if lora else LoraConfig(),
        optimizer=OptimizerConfig(schedule="constant", learning_rate=LEARNING_RATE),
    )


def model_flops_per_token(shape: str, lora: bool, batch: dict[str, np.ndarray]) -> float:
    """Return the model FLOPs of a token of the batch; both sides are counted alike."""
    from ift_jax.models.model import trained_model

    counts = example_counts(batch["segment_ids"], batch["loss_weights"])
    model = trained_model(our_train_config(shape, lora))
    return model.flops_per_token(**counts)


# --- Ours ---


def measure_ours(shape: str, length: int, lora: bool, work: Work) -> Record:
    """Compile and time our step."""
    config = our_train_config(shape, lora)
    batch = make_batch(work.shapes[shape], length, config.model.vocab_size)
    step = our_step(config, batch)
    timed = time_steps(step.run, work.n_steps)
    flops_per_token = model_flops_per_token(shape, lora, batch)
    return {**figures(timed, batch, flops_per_token), "memory_gib": program_gib(step)}


def program_gib(step: OurStep) -> float:
    """Return what the program holds while it runs; results take the place of donated arguments."""
    memory = step.compiled.memory_analysis()
    n_bytes = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return round(n_bytes / GIB, 3)


def our_side(work: Work) -> None:
    """Print a record for each shape, length and kind of finetuning."""
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.sharding.mesh import make_mesh
    from ift_jax.training.throughput import measure_peak_flops

    device = jax.devices()[0]
    emit({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__})
    emit_measured({}, lambda: {"peak_tflops": measure_peak_flops("bfloat16") / 1e12})
    with jax.set_mesh(make_mesh(MeshConfig(), [device])):
        for shape, lora, length in itertools.product(work.shapes, (False, True), work.lengths):
            emit_measured(
                {"side": "ift_jax", "shape": shape, "length": length, "lora": lora},
                functools.partial(measure_ours, shape, length, lora, work),
            )


# --- transformers ---


def attentions(device: str) -> Iterator[str]:
    """Yield the attention implementations to measure, those that need no compilation first."""
    yield "sdpa"
    if device == "cuda":
        yield "flex_attention"
        if importlib.util.find_spec("flash_attn"):
            yield "flash_attention_2"


def flattened(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same examples in one row, which FlashAttention needs."""
    return {name: array.reshape(1, -1) for name, array in batch.items()}


def make_torch_model(shape: str, lora: bool, attention: str, device: str) -> Any:
    """Return the model of `transformers`; with LoRA, adapters are inside its projections."""
    import torch

    torch.manual_seed(0)
    with torch.device(device):
        model = torch_model(shape, attention)
    model.train()
    if lora:
        import peft

        model.to(torch.bfloat16)
        adapters = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=PROJECTIONS)
        peft.get_peft_model(model, adapters)  # Puts float32 adapters into the model.
    return model


def append_model(made: list[Any], shape: str, lora: bool, attention: str, device: str) -> Record:
    """Append the model to a list, which stays empty if it cannot be made."""
    model = make_torch_model(shape, lora, attention, device)
    made.append(model)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def measure_torch(
    model: Any, shape: str, batch: dict[str, np.ndarray], work: Work, lora: bool, trained_only: bool
) -> Record:
    """Time the step of a model of `transformers`."""
    import torch

    device = next(model.parameters()).device.type
    attention = model.config._attn_implementation
    fed = flattened(batch) if attention == "flash_attention_2" else batch
    loss = torch_loss(model, fed, trained_only, MASKS[attention])

    def loss_in_bfloat16() -> Any:
        with torch.autocast(device, torch.bfloat16):
            return loss()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timed = time_steps(torch_step(model, shape, loss_in_bfloat16), work.n_steps)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    flops_per_token = model_flops_per_token(shape, lora, batch)
    return {**figures(timed, batch, flops_per_token), "memory_gib": round(memory / GIB, 3)}


def torch_side(work: Work, device: str) -> None:
    """Print a record for each attention, shape, kind of finetuning, length and extent of the head.

    A model that cannot be made, for want of memory or a package, is a record with its error.
    """
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    emit({"device": name, "platform": device, "torch": torch.__version__})
    for attention, shape, lora in itertools.product(attentions(device), work.shapes, (False, True)):
        of = {"side": "torch", "shape": shape, "lora": lora, "attention": attention}
        made: list[Any] = []
        emit_measured(of, functools.partial(append_model, made, shape, lora, attention, device))
        for model in made:
            for length, trained_only in itertools.product(work.lengths, (True, False)):
                batch = make_batch(work.shapes[shape], length, model.config.vocab_size)
                emit_measured(
                    {**of, "length": length, "trained_only": trained_only},
                    functools.partial(measure_torch, model, shape, batch, work, lora, trained_only),
                )
        made.clear()
        model = None  # Its memory is free for the next one.
        if device == "cuda":
            torch.cuda.empty_cache()


def main(argv: list[str] | None = None) -> None:
    """Measure one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("ift_jax", "torch"), required=True)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to try it on a CPU")
    args = parser.parse_args(argv)
    work = TINY_WORK if args.tiny else WORK
    if args.side == "ift_jax":
        our_side(work)
    else:
        torch_side(work, "cpu" if args.tiny else "cuda")


if __name__ == "__main__":
    main()
