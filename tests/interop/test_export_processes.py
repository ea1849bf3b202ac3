"""Export from real processes: two of them write the same bytes as one."""

import json
import sys
import textwrap

import pytest

from tests.training.runs import finish, free_port, start

pytestmark = pytest.mark.slow
SCRIPT = textwrap.dedent("""
    import dataclasses
    import sys

    import jax
    import numpy as np

    output, *processes = sys.argv[1:]
    if processes:
        port, index = processes
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
    assert (jax.device_count(), jax.process_count()) == (2, 2 if processes else 1)

    from ift_jax.config.schema import MeshConfig
    from ift_jax.interop.hugging_face_export import export
    from ift_jax.models import build_model
    from ift_jax.sharding import rules
    from ift_jax.sharding.mesh import make_mesh
    from tests.small_models import CONFIG
    from tests.text.small_tokenizers import sentencepiece_tokenizer

    model = build_model(dataclasses.replace(CONFIG.model, n_layers=3, vocab_size=512))
    mesh = make_mesh(MeshConfig(data=1, fsdp=2))
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    rng = np.random.default_rng(0)

    def put(leaf, sharding):
        values = rng.normal(size=leaf.shape).astype(np.float32)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: values[index])

    params = jax.tree.map(put, model.shapes, shardings)
    export(
        model,
        params,
        sentencepiece_tokenizer(),
        output,
        stop_ids=(2, 5),
        dtype="bfloat16",
        shard_bytes=20_000,
    )
""")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_export_what_one_exports(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    run = [sys.executable, "-c", SCRIPT]
    port = str(free_port())
    processes = [start([*run, str(one)], devices=2)]
    processes += [start([*run, str(two), port, str(i)]) for i in range(2)]
    for process in processes:
        finish(process)
    assert files(one) == files(two)
    assert len(files(one)) > 5 and not (tmp_path / "two.partial").exists()
    assert json.loads(files(one)["generation_config.json"])["eos_token_id"] == [2, 5]
