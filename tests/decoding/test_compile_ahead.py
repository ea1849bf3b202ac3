"""Programs of later batches are compiled on other threads, and calling them compiles no more."""

import dataclasses
import functools
import importlib
import threading

import jax
import jax.numpy as jnp
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.decoding import Generator, Options, Request, Stops, compile_ahead
from ift_jax.decoding.block_loops import prompt_program
from ift_jax.decoding.cache import extend, prefill
from ift_jax.decoding.compile_ahead import CompileAhead
from ift_jax.decoding.request_batch import RequestBatch
from ift_jax.models import build_model
from ift_jax.sharding.mesh import make_mesh
from ift_jax.sharding.product_library import can_choose_eigen
from ift_jax.sharding.trees import abstract
from tests.small_models import ARCHITECTURES

COMPILES = "/jax/core/compile/backend_compile_duration"
LENGTHS = (3, 20, 4, 21)  # Padded to two lengths.


@pytest.fixture
def compiling_threads():
    """The name of the thread that compiled each program."""
    names = []

    def listen(event, duration, **_):
        if event == COMPILES:
            names.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("architecture", "n_devices"), [("decoder", 0), ("decoder", 2), ("encoder_decoder", 1)]
)
def test_every_program_is_compiled_once_and_ahead(architecture, n_devices, compiling_threads):
    # A model of this test alone, so that nothing is compiled for it yet.
    model = build_model(dataclasses.replace(ARCHITECTURES[architecture], d_ff=32 + n_devices))
    if n_devices:
        with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:n_devices])):
            params = jax.jit(model.init)(jax.random.key(0))
    else:
        params = jax.jit(model.init)(jax.random.key(0))
    generator = Generator(model, params, stops=Stops(), pad_id=0)
    requests = [Request([5] * length, Options(4)) for length in LENGTHS]
    can_choose_eigen()  # The first look compiles an empty program.
    compiling_threads.clear()

    outputs = generator.complete(requests, batch_size=2)
    # Two lengths are read. One loop of a decoder serves both; an encoder's output has a length too.
    assert len(compiling_threads) == 2 + (1 if architecture == "decoder" else 2)
    assert all(name.startswith("compile-ahead") for name in compiling_threads)
    assert [generator.complete([request])[0] for request in requests[:1]] == outputs[:1]


def test_programs_are_compiled_from_shapes_alone(compiling_threads):
    model = build_model(dataclasses.replace(ARCHITECTURES["decoder"], d_ff=35))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    requests = [Request([5] * length, Options(4)) for length in LENGTHS[:2]]
    with jax.set_mesh(mesh):
        params = jax.jit(model.init)(jax.random.key(0))
        shapes = abstract(params, jax.tree.map(lambda leaf: leaf.sharding, params))
        Generator(model, shapes, stops=Stops(), pad_id=0).compile(requests)
        assert compiling_threads
        compiling_threads.clear()
        generator = Generator(model, params, stops=Stops(), pad_id=0)
        assert len(generator.complete(requests)) == 2
    assert not compiling_threads


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_of_a_kind_are_traced_and_lowered_once(architecture):
    """A deep model would otherwise take as long to trace and lower as to compile."""
    config = ARCHITECTURES[architecture]
    depth = "n_layers" if architecture == "decoder" else "n_decoder_layers"
    n_lines = []
    for n in (4, 8):
        model = build_model(dataclasses.replace(config, **{depth: n}))
        params = jax.eval_shape(model.unstack, jax.eval_shape(model.init, jax.random.key(0)))
        prompts = jnp.ones((2, 16), jnp.int32)
        begun = functools.partial(prefill, model.unrolled, n_new=4)
        _, cache, _ = jax.eval_shape(begun, params, prompts, jnp.ones(2, jnp.int32))
        step = jax.jit(functools.partial(extend, model.unrolled))
        n_lines.append(step.lower(params, prompts[:, 0], cache).as_text().count("dot_"))
    assert n_lines[0] == n_lines[1] > 0


def test_many_prompts_on_a_cpu_are_read_with_eigen():
    def text(n_rows):
        requests = [Request([5] * 20, Options(2))] * n_rows
        batch = RequestBatch(requests, generator.stops)
        prompts, layout, *_ = generator._arguments(batch, n_rows)
        program = prompt_program(prompts)
        return program.lower(generator.model, layout, generator.params, prompts).compile().as_text()

    model = build_model(dataclasses.replace(ARCHITECTURES["decoder"], d_ff=128))
    generator = Generator(model, model.init(jax.random.key(0)), stops=Stops(), pad_id=0)
    assert "ynn_fusion" in text(64) and "ynn_fusion" not in text(86)  # Each has 24 places.


def test_prompts_left_over_are_the_shortest_ones():
    """A batch's empty rows are computed too, as long as its longest prompt."""
    module = importlib.import_module("ift_jax.decoding.generate")
    requests = [Request([5] * length, Options(2)) for length in (9, 1, 7, 3, 5)]
    assert list(module._batches(requests, 4)) == [([1], 4), ([3, 4, 2, 0], 4)]


def test_what_fails_ahead_is_raised(monkeypatch):
    def fail(*_):
        raise MemoryError("no room for the program")

    module = importlib.import_module("ift_jax.decoding.generate")
    monkeypatch.setattr(module, "compile_batch", fail)
    model = build_model(ARCHITECTURES["decoder"])
    params = jax.jit(model.init)(jax.random.key(0))
    generator = Generator(model, params, stops=Stops(), pad_id=0)
    with pytest.raises(MemoryError, match="no room for the program"):
        generator.complete([Request([5] * length, Options(2)) for length in LENGTHS], batch_size=2)


@pytest.fixture
def two_batches_ahead(monkeypatch):
    monkeypatch.setattr(compile_ahead, "_N_AHEAD", 2)


def decoded(keys):
    """Waits for each batch; returns how many keys were made before that, and what was compiled."""
    asked, compiled, n_asked = [], [], []

    def key_of(number):
        asked.append(number)
        return keys[number]

    with CompileAhead(len(keys), key_of, compiled.append) as ahead:
        for number in range(len(keys)):
            n_asked.append(len(asked))
            ahead.wait(number)
    assert asked == list(range(len(keys)))
    return n_asked, sorted(compiled)


@pytest.mark.usefixtures("two_batches_ahead")
def test_keys_are_made_as_batches_come_and_each_is_compiled_once():
    n_asked, compiled = decoded("abbaacb")
    assert n_asked == [2, 2, 3, 4, 5, 6, 7]
    assert compiled == [0, 1, 5]


@pytest.mark.usefixtures("two_batches_ahead")
def test_one_program_alone_is_left_to_its_first_batch():
    assert decoded("aaaa")[1] == []
    assert decoded("a")[1] == []
    # Its batch was decoded before another program was in sight.
    assert decoded("aaaab")[1] == [4]
