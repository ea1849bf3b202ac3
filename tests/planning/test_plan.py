"""`ift plan` reports what the compiler says."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import pytest

from ift_jax.commands.main import main
from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    MeshConfig,
    TrainConfig,
)
from ift_jax.errors import UserError
from ift_jax.planning import compile_decode, compile_step, report, search, topology
from ift_jax.planning.environment import set_environment
from ift_jax.planning.identities import check_plan, least_sent
from ift_jax.sharding.mesh import config_sizes

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU's compiler, is not installed",
)
SMALL = Config(
    model=DecoderConfig(
        vocab_size=512,
        d_model=256,
        n_layers=3,
        n_heads=2,
        n_kv_heads=1,
        head_dim=128,
        d_ff=512,
        dtype="bfloat16",
        remat="full",
    ),
    data=DataConfig(max_length=256),
    train=TrainConfig(batch_size=16, steps=10),
    mesh=MeshConfig(data=1, fsdp=-1),
)


def python(*arguments):
    """Run Python in a new process with the environment of a user, not that of the tests."""
    ours = ("XLA_FLAGS", "JAX_PLATFORMS", "NPROC", "TPU_LIBRARY_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run([sys.executable, *arguments], env=kept, capture_output=True, text=True)


@pytest.fixture(scope="module")
def small():
    set_environment()
    program = compile_step.program_of(SMALL, "v5p:2x2x1")
    return program, compile_step.compile_step(program)


@needs_libtpu
def test_memory_by_kind_is_the_compilers(small):
    program, compiled = small
    memory = compiled.memory
    analysis = compiled.executable.memory_analysis()
    state_and_batch = analysis.argument_size_in_bytes
    not_aliased = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    parts = memory["parts"]
    assert sum(parts.values()) == memory["total"]
    program_code = parts["program"]
    assert program_code == analysis.generated_code_size_in_bytes > 0
    needed = state_and_batch + analysis.temp_size_in_bytes + not_aliased + program_code
    assert memory["total"] == needed
    assert memory["live"] == analysis.peak_memory_in_bytes >= state_and_batch + not_aliased
    # By hand, in float32: all parameters but the norms are cut over four devices.
    n_norms = 256 * (2 * 3 + 1)
    parameter_bytes = (program.model.n_params - n_norms) + 4 * n_norms
    assert parts["parameters"] == parameter_bytes
    assert parts["optimizer"] == 2 * parameter_bytes + 4  # Two moments and Adam's count.
    assert parts["batch"] == 4 * (6 * 256 + 1) * 4  # Four rows of six arrays, and row_ids.
    assert 0 <= parts["padding"] < 0.1 * state_and_batch + 2**16
    assert all(size >= 0 for size in parts.values())
    record = json.loads(json.dumps(report.step_record(program, compiled, "v5p:2x2x1", 1)))
    assert record["fits"] and record["memory"]["total"] == memory["total"]
    assert record["mesh"] == {"data": 1, "fsdp": 4, "expert": 1, "tensor": 1, "sequence": 1}
    # A gradient that no figure counts makes the plan impossible, and is reported where it is known.
    assert sum(one["bytes_sent"] for one in record["collectives"]) >= least_sent(program) > 1e5
    with pytest.raises(RuntimeError, match="a device sends 0 bytes, and the sum of the gradients"):
        check_plan(record | {"collectives": []}, least_sent(program))
    unknown = {"operation": "teleport", "executions": 3, "n_bytes": 2**30}
    assert report.lines(record | {"not_counted": [unknown]})[-1].split() == [
        "teleport",
        "1.000",
        "in",
        "3",
    ]
    assert "counted nowhere" not in "\n".join(report.lines(record))


@needs_libtpu
@pytest.mark.slow
def test_a_plan_counts_the_collectives_of_sparse_cores():
    """Those of tpu7x are behind `call-start`: its plan had none, and a step took 1.6e-07 s."""
    set_environment()
    heads = dataclasses.replace(SMALL.model, n_heads=4, n_kv_heads=2)
    program = compile_step.program_of(dataclasses.replace(SMALL, model=heads), "tpu7x:2x2x1")
    record = report.step_record(program, compile_step.compile_step(program), "tpu7x:2x2x1", 1)
    assert record["fits"] and record["not_counted"] == [] and record["devices"] == 8
    sent = report.sent_by_kind(record)
    layers = jax.tree.leaves(program.model.shapes["layers"])
    weights = 2 * sum(leaf.size for leaf in layers if leaf.ndim > 2) * 7 / 8  # In bfloat16.
    # Gathered in the forward pass and, recomputed, in the backward pass.
    assert 2 * weights <= sent["all-gather"].n_bytes < 4 * weights
    assert weights <= sent["reduce-scatter"].n_bytes < 2 * weights
    assert record["compiler_estimate"]["interconnect_seconds"] > 1e-5


@needs_libtpu
def test_a_program_that_does_not_fit_is_no_error(small):
    program, _ = small
    more = dataclasses.replace(SMALL, train=TrainConfig(batch_size=2**21, steps=10))
    compiled = compile_step.compile_step(compile_step.program_of(more, "v5e:2x2"))
    record = report.step_record(program, compiled, "v5e:2x2", 1)
    assert not record["fits"] and compiled.executable is None
    assert "hbm" in record["refusal"].lower()  # The compiler's own words.
    assert record["memory"]["parts"]["parameters"] > 0
    assert any("does not fit: " in line for line in report.lines(record))


def test_a_compiler_that_fails_is_one_line():
    """libtpu 0.0.42.1 does so for tpu7x and attention with one head of keys and values."""

    class Failing:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "INTERNAL: during context [x]: Fused\n is not\nSuspected"
            )

    with pytest.raises(
        UserError, match=r"the TPU's compiler failed: INTERNAL: .* Fused is not"
    ) as e:
        compile_step.compile_lowered(Failing(), {})
    assert "\n" not in str(e.value)


@needs_libtpu
@pytest.mark.slow
def test_the_command_says_whether_it_fits_by_its_exit_code(tmp_path, capsys):
    config = tmp_path / "small.py"
    config.write_text(
        "from ift_jax.config.files import default_config\n"
        "def get_config():\n"
        "    config = default_config('decoder')\n"
        "    config.data.mixture, config.tokenizer.path = 'none', 'nowhere.model'\n"
        "    config.train.steps, config.model.vocab_size = 10, 512\n"
        "    return config\n"
    )
    record = tmp_path / "plan.json"
    given = [
        "-m",
        "ift_jax.commands.main",
        "plan",
        "--config",
        str(config),
        "--topology",
        "v5e:2x2",
        "--json",
        str(record),
    ]
    few = python(*given, "--config.train.batch_size=4", "--config.model.n_layers=1")
    assert few.returncode == 0 and few.stderr == "", few.stderr
    assert "train step: fits" in few.stdout
    assert json.loads(record.read_text())["fits"] is True
    # The exit codes of processes are what `main` returns.
    set_environment()
    assert main([*given[2:], "--config.train.batch_size=1048576", "--config.model.n_layers=1"]) == 1
    assert "train step: does not fit: " in capsys.readouterr().out
    assert main([*given[2:], "--config.model.vocab_size=0"]) == 2
    unknown = capsys.readouterr()
    assert unknown.out == ""
    assert unknown.err == (
        "error: config.model.vocab_size: not known, as nowhere.model is not here; set it\n"
    )


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "slices", "mesh", "said"),
    [
        ("v9:4x4", 1, {}, "got 'v9:4x4'"),
        ("v5p:4x4", 1, {}, "along each axis"),
        ("v5p:4xx4", 1, {}, "along each axis"),
        ("v5p:3x3x3", 1, {}, "knows no such topology"),
        ("v5e:4x4", 1, {"fsdp": 3}, "3 does not divide the 16 devices"),
        ("v5e:4x4", 2, {"data": 1, "fsdp": -1}, "a multiple of the 2 slices; got 1"),
    ],
)
def test_a_mistake_is_one_line_before_any_compiling(name, slices, mesh, said):
    set_environment()
    config = dataclasses.replace(SMALL, mesh=MeshConfig(**mesh))
    with pytest.raises(UserError, match=r"^(--topology|mesh|config\.mesh)") as error:
        compile_step.program_of(config, name, slices)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_compiler_that_fails_is_not_an_unknown_topology(monkeypatch):
    said = 'ABORTED: Internal error when accessing libtpu multi-process lockfile.\nRun "rm x".'

    def fail(**options):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(topology.topologies, "get_topology_desc", fail)
    with pytest.raises(UserError, match="^--topology v5e:2x2: the TPU compiler") as error:
        topology.devices_of("v5e:2x2")
    assert " ".join(said.split()) in str(error.value)
    assert "no such topology" not in str(error.value) and "\n" not in str(error.value)


@needs_libtpu
def test_only_the_data_axis_crosses_slices():
    set_environment()
    more = TrainConfig(batch_size=64, steps=10)
    config = dataclasses.replace(SMALL, mesh=MeshConfig(data=4, fsdp=-1), train=more)
    mesh = compile_step.program_of(config, "v5e:4x4", 2).mesh
    assert config_sizes(mesh) == {"data": 4, "fsdp": 8, "expert": 1, "tensor": 1, "sequence": 1}
    slices = [{device.slice_index for device in part.flat} for part in mesh.devices]
    assert slices == [{0}, {0}, {1}, {1}]


@needs_libtpu
@pytest.mark.parametrize("chip", topology.AXES)
def test_every_chip_can_be_named(chip):
    set_environment()
    name = f"{chip}:2x2x1" if topology.AXES[chip] == 3 else f"{chip}:2x2"
    devices = topology.devices_of(name)
    assert len(devices) == (8 if chip == "tpu7x" else 4)  # A tpu7x has two devices per chip.
    assert {device.platform for device in devices} == {"tpu"}


def test_a_missing_compiler_is_one_line_that_says_how_to_get_it():
    program = (
        "import sys; sys.modules['libtpu'] = None\n"
        "from ift_jax.commands.main import main\n"
        "sys.exit(main(['plan', '--config', 'configs/tulu3.py:8b', '--topology', 'v5e:2x2']))"
    )
    done = python("-c", program)
    assert done.returncode == 2 and done.stdout == ""
    assert "run launch/setup.sh plan" in done.stderr and done.stderr.count("\n") == 1


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL.model, EncoderDecoderConfig(vocab_size=512)])
def test_generation_compiles_too(model):
    set_environment()
    asked = EvaluationConfig(batch_size=4, max_new_tokens=100)
    config = dataclasses.replace(SMALL, model=model, evaluation=asked)
    program = compile_step.program_of(config, "v5p:2x2x1")
    done = compile_decode.compile_generation(program)
    assert list(done) == ["prefill", "decode"]
    for name, compiled in done.items():
        memory = compiled.memory
        assert sum(memory["parts"].values()) == memory["total"], name
    if model is SMALL.model:  # Keys and values of 3 layers, 4 rows and 1 head of 128 in bfloat16.
        slots = 256 + 128  # 156 tokens of a prompt and 100 new ones, each padded.
        layers = 2 * 3 * 4 * slots * 128 * 2
        cache = done["decode"].memory["parts"]["cache"]
        assert layers / 4 <= cache < 1.1 * layers + 2 * 4 * 4 * slots  # Cut over 1 to 4 devices.


class Searched(NamedTuple):
    """What a search found, compiled and printed, and what it could have compiled."""

    found: list
    compiled: list
    printed: list
    every: list


def search_with(memory_of, n_devices=8, rows=32):
    """Search where a config needs `memory_of(config)` of a device's memory of 10."""
    compiled, printed = [], []

    def judge(config):
        compiled.append(config)
        needs = memory_of(config)
        return {
            "fits": needs <= 10,
            "refusal": "",
            "config": config,
            "compiler_estimate": {"seconds": needs},
        }

    config = dataclasses.replace(SMALL, train=TrainConfig(batch_size=rows, steps=1))
    every = list(search.candidates(config, n_devices, 1))
    found = search.search(iter(every), judge, printed.append)
    return Searched(found, compiled, printed, every)


def test_search_finds_the_best_without_compiling_what_follows():
    def memory_of(config):
        activations = {"none": 64, "full": 4, "offload": 2}.get(config.model.remat, 16)
        return (
            activations / config.train.gradient_accumulation_steps / config.mesh.tensor
            + 24 / config.mesh.fsdp
        )

    found, compiled, printed, every = search_with(memory_of)
    assert len(compiled) == len(printed) - 1 < len(every) == len(set(every))
    counts = [int(word) for word in printed[-1].split() if word.isdigit()]
    assert "not compiled" in printed[-1] and sum(counts) == len(every) - len(compiled)
    # A candidate that fits and was not compiled is covered by one that was.
    fitting = [record["config"] for record in found]
    for candidate in every:
        fits = any(search.covers(known, candidate) for known in fitting)
        assert fits == (memory_of(candidate) <= 10), candidate
    seconds = [record["compiler_estimate"]["seconds"] for record in found]
    assert found and seconds == sorted(seconds)


def test_search_says_when_nothing_fits():
    found, compiled, printed, _ = search_with(lambda config: 11)
    assert found == [] and all("does not fit" in line for line in printed)
    assert report.ranking(found)[0].startswith("0 fit")
    # For each mesh the lightest choice, and the one that keeps the layers' inputs elsewhere.
    assert {config.model.remat for config in compiled} == {"full", "offload"}
    full = [config.mesh for config in compiled if config.model.remat == "full"]
    assert len(set(full)) == len(full)


def test_search_goes_on_after_what_the_compiler_fails_on():
    def memory_of(config):
        if config.mesh.tensor == 1:
            raise compile_step.CompilerFault("the TPU's compiler failed: INTERNAL")
        return 1

    found, _, printed, every = search_with(memory_of)
    failed = [line for line in printed if "cannot be compiled: the TPU's compiler failed" in line]
    assert len(failed) == sum(config.mesh.tensor == 1 for config in every) > 0
    assert {record["config"].mesh.tensor for record in found} == {2}


@needs_libtpu
@pytest.mark.slow
def test_search_by_the_compiler():
    set_environment()
    model = dataclasses.replace(SMALL.model, n_layers=1)
    train = TrainConfig(batch_size=4, steps=1)
    config = dataclasses.replace(SMALL, model=model, train=train)
    printed = []

    def judge(config):
        program = compile_step.program_of(config, "v5e:2x2")
        return report.step_record(program, compile_step.compile_step(program), "v5e:2x2", 1)

    every = [one for one in search.candidates(config, 4, 1) if one.mesh.fsdp == 4]
    found = search.search(iter(every), judge, printed.append)
    assert {record["remat"] for record in found} == {"none", "full"} and len(printed) == 3
    header, *rows = report.ranking(found)[1:]
    for row, record in zip(rows, found, strict=True):
        assert row.split()[:4] == ["fsdp", "4", record["remat"], "1"]
        end = header.index("s per step") + len("s per step")
        assert float(row[:end].split()[-1]) == pytest.approx(
            record["compiler_estimate"]["seconds"], rel=1e-2
        )
