"""`ift plan`: what it says is what the compiler says."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import pytest

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
from ift_jax.sharding.mesh import config_sizes

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not here"
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
    """A process of its own, as a user starts it."""
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
    memory, said = compiled.memory, compiled.executable.memory_analysis()
    state_and_batch = said.argument_size_in_bytes
    not_aliased = said.output_size_in_bytes - said.alias_size_in_bytes
    parts = memory["parts"]
    assert sum(parts.values()) == memory["total"]
    assert memory["total"] == state_and_batch + said.temp_size_in_bytes + not_aliased
    # By hand: parameters are cut over four devices, but for the norms; float32, two moments.
    n_norms = 256 * (2 * 3 + 1)
    of_parameters = (program.model.n_params - n_norms) + 4 * n_norms
    assert parts["parameters"] == of_parameters
    assert parts["optimizer"] == 2 * of_parameters + 4  # And Adam's count.
    assert parts["batch"] == 4 * (6 * 256 + 1) * 4  # Rows of six arrays, and row_ids.
    assert 0 <= parts["padding"] < 0.1 * state_and_batch + 2**16
    assert all(size >= 0 for size in parts.values())
    record = json.loads(json.dumps(report.record_of(program, compiled, "v5p:2x2x1", 1)))
    assert record["fits"] and record["memory"]["total"] == memory["total"]
    assert record["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1, "sequence": 1}


@needs_libtpu
def test_what_does_not_fit_is_an_answer(small):
    program, _ = small
    more = dataclasses.replace(SMALL, train=TrainConfig(batch_size=2**21, steps=10))
    compiled = compile_step.compile_step(compile_step.program_of(more, "v5e:2x2"))
    record = report.record_of(program, compiled, "v5e:2x2", 1)
    assert not record["fits"] and compiled.executable is None
    assert "hbm" in record["refusal"].lower()  # The compiler's own words.
    assert record["memory"]["parts"]["parameters"] > 0
    assert any("does not fit: " in line for line in report.lines(record))


@needs_libtpu
@pytest.mark.slow
def test_the_command_says_whether_it_fits_by_its_exit_code(tmp_path):
    config = tmp_path / "small.py"
    config.write_text(
        "from ift_jax.config.files import default_config\n"
        "def get_config():\n"
        "    config = default_config('decoder')\n"
        "    config.data.mixture, config.tokenizer.path = 'none', 'nowhere.model'\n"
        "    config.train.steps, config.model.vocab_size = 10, 512\n"
        "    return config\n"
    )
    said = tmp_path / "plan.json"
    given = [
        "-m",
        "ift_jax.commands.main",
        "plan",
        "--config",
        str(config),
        "--topology",
        "v5e:2x2",
        "--json",
        str(said),
    ]
    few = python(*given, "--config.train.batch_size=4", "--config.model.n_layers=1")
    assert few.returncode == 0 and few.stderr == "", few.stderr
    assert "train step: fits" in few.stdout
    assert json.loads(said.read_text())["fits"] is True
    many = python(*given, f"--config.train.batch_size={2**20}", "--config.model.n_layers=1")
    assert many.returncode == 1 and "train step: does not fit: " in many.stdout
    unknown = python(*given, "--config.model.vocab_size=0")
    assert unknown.returncode == 2 and unknown.stdout == ""
    assert unknown.stderr == (
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


@needs_libtpu
def test_slices_are_along_data_alone():
    set_environment()
    more = TrainConfig(batch_size=64, steps=10)
    config = dataclasses.replace(SMALL, mesh=MeshConfig(data=4, fsdp=-1), train=more)
    mesh = compile_step.program_of(config, "v5e:4x4", 2).mesh
    assert config_sizes(mesh) == {"data": 4, "fsdp": 8, "tensor": 1, "sequence": 1}
    slices = [{device.slice_index for device in part.flat} for part in mesh.devices]
    assert slices == [{0}, {0}, {1}, {1}]


@needs_libtpu
@pytest.mark.parametrize("chip", topology.AXES)
def test_every_chip_can_be_named(chip):
    set_environment()
    name = f"{chip}:2x2x1" if topology.AXES[chip] == 3 else f"{chip}:2x2"
    devices = topology.devices_of(name)
    assert len(devices) == (8 if chip == "tpu7x" else 4)  # Two a chip there.
    assert {device.platform for device in devices} == {"tpu"}


def test_without_the_compiler_it_is_said_how_to_get_it():
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
    if model is SMALL.model:  # Keys and values of 3 layers, 4 rows, 1 head of 128, bfloat16.
        slots = 256 + 128  # 156 tokens of prompt, 100 new, each with its padded length.
        layers = 2 * 3 * 4 * slots * 128 * 2
        cache = done["decode"].memory["parts"]["cache"]
        assert layers / 4 <= cache < 1.1 * layers + 2 * 4 * 4 * slots  # Cut over 1 to 4 devices.


def _search(memory_of, n_devices=8, rows=32):
    """The search where a config needs `memory_of(config)` of 10: found, compiled, said, all."""
    asked, said = [], []

    def judge(config):
        asked.append(config)
        needs = memory_of(config)
        return {
            "fits": needs <= 10,
            "refusal": "",
            "config": config,
            "compiler_estimate": {"seconds": needs},
        }

    config = dataclasses.replace(SMALL, train=TrainConfig(batch_size=rows, steps=1))
    every = list(search.candidates(config, n_devices, 1))
    return search.search(iter(every), judge, said.append), asked, said, every


def test_search_finds_the_best_without_compiling_what_follows():
    def memory_of(config):
        activations = {"none": 64, "full": 4, "offload": 2}.get(config.model.remat, 16)
        return (
            activations / config.train.gradient_accumulation_steps / config.mesh.tensor
            + 24 / config.mesh.fsdp
        )

    found, asked, said, every = _search(memory_of)
    assert len(asked) == len(said) - 1 < len(every) == len(set(every))
    counts = [int(word) for word in said[-1].split() if word.isdigit()]
    assert "not compiled" in said[-1] and sum(counts) == len(every) - len(asked)
    # Whatever fits and was not compiled is covered by one that was.
    fitting = [record["config"] for record in found]
    for candidate in every:
        fits = any(search.covers(known, candidate) for known in fitting)
        assert fits == (memory_of(candidate) <= 10), candidate
    seconds = [record["compiler_estimate"]["seconds"] for record in found]
    assert found and seconds == sorted(seconds)


def test_search_says_when_nothing_fits():
    found, asked, said, _ = _search(lambda config: 11)
    assert found == [] and all("does not fit" in line for line in said)
    assert report.ranking(found)[0].startswith("0 fit")
    # Of a mesh the lightest, and that with the layers' inputs elsewhere.
    assert {config.model.remat for config in asked} == {"full", "offload"}
    full = [config.mesh for config in asked if config.model.remat == "full"]
    assert len(set(full)) == len(full)


@needs_libtpu
@pytest.mark.slow
def test_search_by_the_compiler():
    set_environment()
    model = dataclasses.replace(SMALL.model, n_layers=1)
    train = TrainConfig(batch_size=4, steps=1)
    config = dataclasses.replace(SMALL, model=model, train=train)
    said = []

    def judge(config):
        program = compile_step.program_of(config, "v5e:2x2")
        return report.record_of(program, compile_step.compile_step(program), "v5e:2x2", 1)

    every = [one for one in search.candidates(config, 4, 1) if one.mesh.fsdp == 4]
    found = search.search(iter(every), judge, said.append)
    assert {record["remat"] for record in found} == {"none", "full"} and len(said) == 3
    header, *rows = report.ranking(found)[1:]
    for row, record in zip(rows, found, strict=True):
        assert row.split()[:4] == ["fsdp", "4", record["remat"], "1"]
        end = header.index("s a step") + len("s a step")
        assert float(row[:end].split()[-1]) == pytest.approx(
            record["compiler_estimate"]["seconds"], rel=1e-2
        )
