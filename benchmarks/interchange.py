"""Measure the memory and time of importing a model folder. Prints one JSON object.

    python -m benchmarks.interchange [--layers 8] [--shard-mb 64]

A Llama folder of random bfloat16 weights is written in shards, and loaded and imported in separate
processes. Each one's peak resident memory, beyond what it holds once JAX has started, is compared
with 1.3 times the larger of two sizes: that of a shard, and that of the model on this host in
float32.
"""

import argparse
import functools
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
from ift_jax.interop.tensor_table import TensorEntry, tensor_table
from ift_jax.models.model import build_model

BOUND = 1.3
DTYPE = np.dtype(jnp.bfloat16)
POLL_SECONDS = 0.002

# The shape and dtype of each tensor of a shard.
Shard = dict[str, tuple[tuple[int, ...], np.dtype]]


def write_folder(folder: str, config: DecoderConfig, shard_bytes: int) -> dict[str, int]:
    """Write random weights in shards, and a tokenizer of one word."""
    import tokenizers
    from tokenizers import models

    rng = np.random.default_rng(0)

    def random_values(shard: Shard, name: str) -> np.ndarray:
        shape, dtype = shard[name]
        return rng.normal(size=shape).astype(dtype)

    family, fields = to_hugging_face(config)
    shards = cut_into_shards(tensor_table(build_model(config), family), shard_bytes)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        get = functools.partial(random_values, shard)
        write_safetensors(os.path.join(folder, file), shard, get)
        weight_map |= dict.fromkeys(shard, file)
    word = models.WordLevel({"</s>": 0, "<pad>": 1}, unk_token="</s>")
    texts = {
        INDEX: {"weight_map": weight_map},
        "config.json": fields,
        "tokenizer_config.json": {"eos_token": "</s>", "pad_token": "<pad>"},
        "tokenizer.json": json.loads(tokenizers.Tokenizer(word).to_str()),
    }
    for name, content in texts.items():
        with open(os.path.join(folder, name), "w") as stream:
            json.dump(content, stream)
    sizes = [sum(map(n_bytes, shard.values())) for shard in shards]
    return {
        "shards": len(shards),
        "largest_shard_bytes": max(sizes),
        "folder_bytes": sum(sizes),
    }


def cut_into_shards(entries: list[TensorEntry], shard_bytes: int) -> list[Shard]:
    """Distribute the tensors over shards of no more than `shard_bytes`, unless one is larger."""
    shards: list[Shard] = [{}]
    size = 0
    for entry in entries:
        tensor = (entry.their_shape, DTYPE)
        for name in entry.names:
            if size + n_bytes(tensor) > shard_bytes and shards[-1]:
                shards.append({})
                size = 0
            shards[-1][name] = tensor
            size += n_bytes(tensor)
    return shards


def n_bytes(tensor: tuple[tuple[int, ...], np.dtype]) -> int:
    """Return the bytes of a tensor of a shape and a dtype."""
    shape, dtype = tensor
    return int(np.prod(shape)) * dtype.itemsize


def resident_bytes() -> int:
    """Return this process's resident memory."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Watches the resident memory of this process, on a thread, while a block runs.

    Attributes:
        n_bytes: The peak, beyond the memory at the beginning of the block.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self._start = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._start = resident_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.n_bytes = max(self.n_bytes, resident_bytes() - self._start)


def load_or_import(folder: str, workdir: str) -> dict[str, Any]:
    """Load a folder, or import it if a workdir is given; return memory and time."""
    import jax

    from ift_jax.checkpoint.import_model import import_model
    from ift_jax.checkpoint.load_model import load_model
    from ift_jax.checkpoint.open_model import open_model_source

    jax.numpy.zeros(8).block_until_ready()
    start = time.perf_counter()
    with PeakMemory() as peak:
        if workdir:
            loaded = import_model(folder, workdir)
        else:
            loaded = load_model(open_model_source(folder))
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "peak_bytes": peak.n_bytes,
        "model_bytes": 4 * loaded.model.n_params,
    }


def in_new_process(folder: str, workdir: str) -> dict[str, Any]:
    """Return what `load_or_import` returns in a process of one device.

    With several devices a process could hold the model more than once.
    """
    command = [sys.executable, "-m", "benchmarks.interchange", "--child", folder, workdir]
    environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS="")
    process = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    """Run both measurements and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--shard-mb", type=int, default=64)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(load_or_import(*arguments.child)))
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
            result = in_new_process(folder, workdir)
            larger = max(report["folder"]["largest_shard_bytes"], result["model_bytes"])
            result["share_of_the_larger"] = round(result["peak_bytes"] / larger, 3)
            result["within_the_bound"] = result["peak_bytes"] <= BOUND * larger
            report[name] = result
    print(json.dumps(report | {"bound": BOUND}, indent=1))


if __name__ == "__main__":
    main()
