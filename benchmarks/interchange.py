"""Measures the memory and time of importing a model folder. Prints one JSON object.

    python -m benchmarks.interchange [--layers 8] [--shard-mb 64]

It writes a Llama folder of random bfloat16 weights in shards, imports it in processes of their own,
and compares each one's peak resident memory, over what it is once JAX has started, with 1.3 times
the larger of (a shard, the model as this host holds it: float32).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.safetensors_files import INDEX, write_safetensors
from ift_jax.interop.tensor_table import tensor_table
from ift_jax.models.model import build_model

BOUND = 1.3


def write_folder(folder: str, config: DecoderConfig, shard_bytes: int) -> dict[str, int]:
    """Random weights in shards, and a tokenizer of one word."""
    import tokenizers
    from tokenizers import models

    rng, dtype = np.random.default_rng(0), np.dtype(jnp.bfloat16)
    shards: list[dict[str, Any]] = [{}]
    size = largest = total = 0
    family, fields = to_hugging_face(config)
    for entry in tensor_table(build_model(config), family):
        for name in entry.names:
            n = int(np.prod(entry.their_shape)) * 2
            if size + n > shard_bytes and shards[-1]:
                shards.append({})
                size = 0
            shards[-1][name] = (entry.their_shape, dtype)
            size, total = size + n, total + n
            largest = max(largest, size)
    weight_map = {}
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_safetensors(
            os.path.join(folder, file),
            tensors,
            lambda name, tensors=tensors: rng.normal(size=tensors[name][0]).astype(dtype),
        )
        weight_map |= dict.fromkeys(tensors, file)
    word = models.WordLevel({"</s>": 0, "<pad>": 1}, unk_token="</s>")
    texts = {
        INDEX: {"weight_map": weight_map},
        "config.json": fields,
        "tokenizer_config.json": {"eos_token": "</s>", "pad_token": "<pad>"},
        "tokenizer.json": json.loads(tokenizers.Tokenizer(word).to_str()),
    }
    for name, fields in texts.items():
        with open(os.path.join(folder, name), "w") as stream:
            json.dump(fields, stream)
    return {"shards": len(shards), "largest_shard_bytes": largest, "folder_bytes": total}


def resident() -> int:
    """This process's resident bytes."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def child(folder: str, workdir: str) -> None:
    """Import (into a workdir, if one is named), and prints its memory and time."""
    import jax

    from ift_jax.checkpoint.import_model import import_model
    from ift_jax.checkpoint.load_model import load_model
    from ift_jax.checkpoint.open_model import open_model_source

    jax.numpy.zeros(8).block_until_ready()
    start, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    trained = import_model(folder, workdir) if workdir else load_model(open_model_source(folder))
    seconds = time.perf_counter() - began
    done.set()
    thread.join()
    print(
        json.dumps(
            {
                "seconds": round(seconds, 2),
                "peak_bytes": peak[0] - start,
                "model_bytes": 4 * trained.model.n_params,
            }
        )
    )


def main() -> None:
    """Run all, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--shard-mb", type=int, default=64)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    config = DecoderConfig(
        vocab_size=16_384,
        d_model=1024,
        n_layers=arguments.layers,
        n_heads=16,
        n_kv_heads=4,
        head_dim=64,
        d_ff=3072,
        max_length=2048,
    )
    report: dict[str, Any] = {"cores_of_the_machine": os.cpu_count()}
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "released")
        os.mkdir(folder)
        report["folder"] = write_folder(folder, config, arguments.shard_mb << 20)
        for name, workdir in (("load", ""), ("import", os.path.join(root, "workdir"))):
            command = [sys.executable, "-m", "benchmarks.interchange", "--child", folder, workdir]
            # One device: what a process holds is then the model once.
            env = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS="")
            out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
            result = json.loads(out.stdout.splitlines()[-1])
            larger = max(report["folder"]["largest_shard_bytes"], result["model_bytes"])
            result["share_of_the_larger"] = round(result["peak_bytes"] / larger, 3)
            result["within_the_bound"] = result["peak_bytes"] <= BOUND * larger
            report[name] = result
    print(json.dumps(report | {"bound": BOUND}, indent=1))


if __name__ == "__main__":
    main()
