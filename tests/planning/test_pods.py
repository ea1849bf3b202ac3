"""docs/pods.md is what `python -m benchmarks.pods` prints from the rows that it keeps."""

import json
from pathlib import Path

from benchmarks import pods
from ift_jax.planning.topology import AXES

KEPT = json.loads(pods.KEPT.read_text())


def test_the_page_is_what_the_command_prints():
    assert Path("docs/pods.md").read_text() == pods.page(pods.kept_rows([], every=False))


def test_every_row_was_made_by_its_command_and_adds_up():
    assert {name: row["arguments"] for name, row in KEPT.items()} == {
        name: arguments for name, (_, arguments) in pods.ROWS.items()
    }
    for name, row in KEPT.items():
        memory = row["memory"]
        assert row["fits"] and memory["total"] == sum(memory["parts"].values()) < row["hbm"], name
        assert row["rows"] % row["devices"] == 0, name
        assert bool(row["collectives"]) == (row["devices"] > 1), name


def test_every_chip_has_a_row_whose_collectives_are_those_of_sharded_parameters():
    """Each weight is gathered twice, in bfloat16, and the gradient of each is summed."""
    assert {row["topology"].partition(":")[0] for row in KEPT.values()} == set(AXES)
    for name in pods.MODELS | pods.SCALING:
        row = KEPT[name]
        once = 2 * row["parameters"] * (row["devices"] - 1) / row["devices"]
        sent = {kind: n_bytes for kind, (_, n_bytes) in row["collectives"].items()}
        # The 8B model's two matrices of the vocabulary are gathered once. The rings of up to
        # 16 devices send up to two parts more than the 15 that are needed.
        assert 1.85 * once < sent["all-gather"] < 2 * once * 17 / 15, name
        # An all-reduce sends a sum twice.
        assert once < sent["reduce-scatter"] + sent["all-reduce"] / 2 < 1.3 * once, name
        assert row["not_counted"] == [], name


def test_a_hybrid_gathers_its_layers_twice_and_its_tied_vocabulary_for_lookup_and_head():
    for name in pods.HYBRIDS:
        row = KEPT[name]
        others = (row["devices"] - 1) / row["devices"]
        vocabulary = 2 * 248_320 * 2560 * others  # Once, in bfloat16.
        layers = 2 * row["parameters"] * others - vocabulary
        sent = {kind: n_bytes for kind, (_, n_bytes) in row["collectives"].items()}
        assert 2 * layers < sent["all-gather"] < 2 * layers * 17 / 15 + 6 * vocabulary, name
        # The table's gradient is summed up to twice, in float32.
        sums = sent["reduce-scatter"] + sent["all-reduce"] / 2
        assert layers + vocabulary < sums < 1.3 * layers + 4 * vocabulary, name
        assert row["not_counted"] == [], name


def test_embeddings_for_each_layer_are_exchanged_and_their_table_is_never_gathered():
    for name in pods.LAYER_TABLES:
        row = KEPT[name]
        others = (row["devices"] - 1) / row["devices"]
        width, rows = 42 * 256, 262_144
        sent = {kind: n_bytes for kind, (_, n_bytes) in row["collectives"].items()}
        # A device's tokens there and their gradients back, in bfloat16.
        vectors = 2 * 2 * row["tokens"] / row["devices"] * width * others
        assert 0.99 * vectors < sent["all-to-all"] < 1.01 * vectors, name
        vocabulary = 2 * rows * 2560 * others
        layers = 2 * row["parameters"] * others - vocabulary - 2 * rows * width * others
        gathered = 8 / 3 * layers + 2 * vocabulary
        assert 0.95 * gathered < sent["all-gather"] < 17 / 15 * gathered, name
        assert row["not_counted"] == [], name


def test_experts_are_gathered_over_fsdp_and_their_tokens_over_the_devices_with_other_experts():
    row = KEPT["qwen3-30b-v5p-64"]
    fsdp, expert = row["mesh"]["fsdp"], row["mesh"]["expert"]
    _, sent = row["collectives"]["all-gather"]
    # In the forward pass, in its repetition and in the gradients' of the sums: BxLxD in bfloat16.
    tokens = 3 * 48 * 2 * 4096 * 2048 * (expert - 1)
    # Each weight twice, in bfloat16, the experts' of one device.
    weights = 2 * 2 * row["parameters"] / expert * (fsdp - 1) / fsdp
    assert tokens + weights < sent < 1.5 * (tokens + weights)
    assert row["not_counted"] == []
