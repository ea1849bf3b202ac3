"""Stores made from arrays, without SeqIO."""

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore, part_path
from ift_jax.preparation.store_writer import PartBuilder, finish_store
from ift_jax.text.encoded import Encoded


def example(n, m=0, rng=None, prefix=None):
    """An example of n tokens and m encoder tokens, all ids different from 0."""
    rng = rng or np.random.default_rng(n * 1000 + m)
    prefix = min(n // 3, n - 1) if prefix is None else prefix
    weights = rng.choice([0.5, 1.0, 2.0], n).astype(np.float32)
    weights[:prefix] = 0
    return Encoded(
        rng.integers(1, 1000, n).astype(np.int32),
        weights,
        rng.integers(1, 1000, m).astype(np.int32),
        prefix,
        prefix,
        references=(f"reference {n} {m}",),
        truncated=0,
        control_strings=0,
    )


def make_store(folder, name, variants, shards=1, split="train"):
    """`variants`: a list (one a variant) of lists of examples, cut into `shards` parts each."""
    partial, final = folder / f"{name}.partial", folder / name
    partial.mkdir(parents=True)
    for v, examples in enumerate(variants):
        for k in range(shards):
            part = PartBuilder()
            for i in range(k, len(examples), shards):
                part.add_record()
                part.add(examples[i], i)
            part.write(part_path(partial, v * shards + k))
    manifest = {"shards": shards, "variants": len(variants), "split": split, "task": name}
    manifest |= {"input_examples": None, "preprocessors": 0}
    finish_store(partial, final, manifest)
    return TokenStore.open(final)


def make_mixture(
    folder, sizes, rates=None, *, max_length=40, encoder=0, variants=1, shards=1, seed=0
):
    """T stores of random examples of 1 to `max_length` tokens (and 0 to `encoder`)."""
    rng = np.random.default_rng(seed)
    names = [f"task{t}" for t in range(len(sizes))]
    stores = []
    for name, size in zip(names, sizes, strict=True):
        made = [
            [
                example(
                    int(rng.integers(1, max_length + 1)), int(rng.integers(0, encoder + 1)), rng
                )
                for _ in range(size)
            ]
            for _ in range(variants)
        ]
        stores.append(make_store(folder, name, made, shards))
    rates = np.array(sizes if rates is None else rates, np.float64)
    return Mixture(names, rates, stores, [[] for _ in names])
