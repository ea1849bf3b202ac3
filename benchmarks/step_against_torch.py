"""The train step against `transformers` on torch: same shapes, same batch, same loss mask.

    python -m benchmarks.step_against_torch --shape llama_135m [--rounds 3] [--steps 5]

Both sides are fed one packed batch on the host again and again: forward, backward, clipping by
the global norm and the optimizer, float32. `torch` is the model of `transformers` with SDPA and
the fused AdamW, its loss over all positions as `labels=` has it; `torch_skip` runs the head at
the trained positions only. Needs the extra `reference`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summary
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.state import init_state

SIDES = (OURS, "torch", "torch_skip")
DECODERS: dict[str, dict[str, int]] = {
    # SmolLM2-135M.
    "llama_135m": dict(vocab=49_152, d=576, layers=30, heads=9, kv=3, head=64, ff=1536),
    "small": dict(vocab=32_000, d=256, layers=4, heads=4, kv=4, head=64, ff=1024),
}
T5_SHAPES = ("t5_small", "t5_small_adafactor")  # T5 1.1 small, 8 rows of 256 in and 64 out.
SHAPES = (*DECODERS, *T5_SHAPES)
T5 = dict(vocab=32_128, d=512, layers=8, heads=6, head=64, ff=1024)


def packed(rows: int, length: int, pieces: list[int], vocab: int) -> dict[str, np.ndarray]:
    """Rows of whole examples; the last 60% of each is trained."""
    rng = np.random.default_rng(0)
    assert sum(pieces) == length
    segments = np.repeat(np.arange(1, len(pieces) + 1), pieces)
    positions = np.concatenate([np.arange(n) for n in pieces])
    trained = np.concatenate([np.arange(n) >= round(0.4 * n) for n in pieces])
    return {
        "tokens": rng.integers(3, vocab, (rows, length)).astype(np.int32),
        "targets": rng.integers(3, vocab, (rows, length)).astype(np.int32),
        "loss_weights": np.tile(trained, (rows, 1)).astype(np.float32),
        "segment_ids": np.tile(segments, (rows, 1)).astype(np.int32),
        "positions": np.tile(positions, (rows, 1)).astype(np.int32),
        "task_ids": np.zeros((rows, length), np.int32),
    }


def batch_of(shape: str) -> dict[str, np.ndarray]:
    """The batch, in the layout of `ift_jax.data.batches`."""
    if shape in DECODERS:
        return packed(4, 256, [110, 84, 62], DECODERS[shape]["vocab"])
    encoder, decoder = packed(8, 256, [150, 106], T5["vocab"]), packed(8, 64, [40, 24], T5["vocab"])
    decoder["loss_weights"][:] = 1.0
    names = ("tokens", "segment_ids", "positions")
    return {f"encoder_{name}": encoder[name] for name in names} | {
        f"decoder_{name}": array for name, array in decoder.items()
    }


def timed(step: Callable[[], float], steps: int) -> dict[str, Any]:
    """Median seconds of a step after two that are not counted, and the last loss."""
    seconds = []
    for i in range(steps + 2):
        start = time.perf_counter()
        loss = step()
        if i >= 2:
            seconds.append(time.perf_counter() - start)
    return {"seconds": round(statistics.median(seconds), 4), "loss": round(loss, 4)}


def ours(shape: str, steps: int) -> dict[str, Any]:
    """The step that `ift train` runs."""
    import jax

    from ift_jax.config.schema import (
        Config,
        DecoderConfig,
        EncoderDecoderConfig,
        MeshConfig,
        ModelConfig,
        OptimizerConfig,
    )
    from ift_jax.models.model import build_model
    from ift_jax.training import step as step_lib
    from ift_jax.training.optimizer import make_learning_rate, make_optimizer

    model_config: ModelConfig
    if shape in DECODERS:
        s = DECODERS[shape]
        model_config = DecoderConfig(
            vocab_size=s["vocab"],
            d_model=s["d"],
            n_layers=s["layers"],
            n_heads=s["heads"],
            n_kv_heads=s["kv"],
            head_dim=s["head"],
            d_ff=s["ff"],
            tied_embedding=True,
        )
    else:
        model_config = EncoderDecoderConfig(
            vocab_size=T5["vocab"],
            d_model=T5["d"],
            n_encoder_layers=T5["layers"],
            n_decoder_layers=T5["layers"],
            n_heads=T5["heads"],
            head_dim=T5["head"],
            d_ff=T5["ff"],
        )
    name = "adafactor" if shape.endswith("adafactor") else "adamw"
    optimizer = OptimizerConfig(name=name, schedule="constant", learning_rate=1e-5)
    config = Config(model=model_config, optimizer=optimizer)
    model = build_model(config.model)
    tx = make_optimizer(config.optimizer, model.logical_axes)
    schedule = make_learning_rate(config.optimizer, 1000)
    batch = batch_of(shape)
    batch["row_ids"] = np.arange(len(next(iter(batch.values()))), dtype=np.int32)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        state = jax.jit(lambda: init_state(model, tx, 0, 1))()
        train_step = jax.jit(
            step_lib.make_train_step(model, tx, schedule, config, 1), donate_argnums=0
        )

        def step() -> float:
            nonlocal state
            state, metrics = train_step(state, batch)
            return float(metrics["loss"] / metrics["steps"])

        return timed(step, steps)


def torch_model(shape: str) -> Any:
    """The same shape in `transformers`."""
    import transformers

    if shape in DECODERS:
        s = DECODERS[shape]
        llama = transformers.LlamaConfig(
            vocab_size=s["vocab"],
            hidden_size=s["d"],
            num_hidden_layers=s["layers"],
            num_attention_heads=s["heads"],
            num_key_value_heads=s["kv"],
            head_dim=s["head"],
            intermediate_size=s["ff"],
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
        return transformers.LlamaForCausalLM(llama)
    t5 = transformers.T5Config(
        vocab_size=T5["vocab"],
        d_model=T5["d"],
        d_kv=T5["head"],
        d_ff=T5["ff"],
        num_layers=T5["layers"],
        num_decoder_layers=T5["layers"],
        num_heads=T5["heads"],
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    return transformers.T5ForConditionalGeneration(t5)


def torch_side(shape: str, steps: int, skip: bool) -> dict[str, Any]:
    """The full step in torch."""
    import torch
    import torch.nn.functional as F
    import transformers

    torch.manual_seed(0)
    model, batch = torch_model(shape), batch_of(shape)
    model.train()
    if shape.endswith("adafactor"):
        optimizer: Any = transformers.Adafactor(
            model.parameters(), lr=1e-5, scale_parameter=True, relative_step=False
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    prefix = "decoder_" if "decoder_tokens" in batch else ""
    as_torch = {name: torch.from_numpy(a).long() for name, a in batch.items()}
    trained = torch.from_numpy(batch[f"{prefix}loss_weights"] > 0)
    labels = as_torch[f"{prefix}targets"].masked_fill(~trained, -100)

    def mask(queries: str, keys: str, causal: bool) -> Any:
        q, k = as_torch[queries][:, :, None], as_torch[keys][:, None, :]
        sees = q == k
        if causal:
            sees = sees & torch.ones(sees.shape[1:], dtype=torch.bool).tril()
        hidden = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
        return hidden[:, None]

    if not prefix:
        inputs = dict(
            input_ids=as_torch["tokens"],
            position_ids=as_torch["positions"],
            attention_mask=mask("segment_ids", "segment_ids", True),
            use_cache=False,
        )
        body, head = model.model, model.lm_head
    else:
        # The cross-attention's mask of `transformers` is by keys alone: one for all queries.
        inputs = dict(
            input_ids=as_torch["encoder_tokens"],
            decoder_input_ids=as_torch["decoder_tokens"],
            attention_mask=torch.ones_like(as_torch["encoder_tokens"]),
            use_cache=False,
        )

    def loss_of() -> Any:
        if skip and not prefix:
            hidden = body(**inputs).last_hidden_state[trained]
            return F.cross_entropy(head(hidden), labels[trained])
        logits = model(**inputs).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

    def step() -> float:
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return timed(step, steps)


def main() -> None:
    """Run the sides in turn and prints one JSON object; with --side, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama_135m")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        if args.side == OURS:
            print(json.dumps(ours(args.shape, args.steps)))
        else:
            print(json.dumps(torch_side(args.shape, args.steps, args.side == "torch_skip")))
        return
    sides = SIDES if args.shape in DECODERS else SIDES[:2]
    arguments = ["--shape", args.shape, "--steps", str(args.steps)]
    results = run_in_turn("benchmarks.step_against_torch", sides, args.rounds, arguments)
    found = summary(results, "seconds", more_is_better=False)
    print(json.dumps({args.shape: found}, indent=1))


if __name__ == "__main__":
    main()
