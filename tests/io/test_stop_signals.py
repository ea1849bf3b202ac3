"""Ctrl-C in the middle of an import, and of a garbage collection."""

import _imp
import gc
import importlib
import importlib.machinery
import signal
import threading
import types

import pytest

from ift_jax.io.stop_signals import interrupts_when_safe


@pytest.fixture(autouse=True)
def _interrupts():
    """Python's own handler, which a process that a shell starts in the background does not have."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_waits_for_the_end_of_a_compiled_modules_import(monkeypatch):
    done = []

    def initialize(module):
        signal.raise_signal(signal.SIGINT)
        done.append(module.__name__)

    monkeypatch.setattr(_imp, "exec_dynamic", initialize)  # What runs a compiled module.
    loader = importlib.machinery.ExtensionFileLoader("compiled", "compiled.so")
    with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
        loader.exec_module(types.ModuleType("compiled"))
        assert done == ["compiled"]
        threading.Event().wait(60)  # The interrupt comes here.
    assert done == ["compiled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_during_a_garbage_collection_is_not_lost():
    came = []

    def interrupt(phase, info):
        if not came:
            came.append(phase)
            signal.raise_signal(signal.SIGINT)

    gc.disable()  # No other collection may come first.
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
            gc.callbacks.append(interrupt)
            gc.collect()
            threading.Event().wait(60)  # The interrupt comes here.
    finally:
        gc.callbacks.remove(interrupt)
        gc.enable()
    assert came == ["start"]


def test_ctrl_c_interrupts_the_import_of_a_python_module_at_once(tmp_path, monkeypatch):
    (tmp_path / "interrupted.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nraise AssertionError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
        importlib.import_module("interrupted")


def test_ctrl_c_outside_of_imports_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("was not interrupted")


def test_another_handler_stays():
    handled = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
    try:
        with interrupts_when_safe():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert handled == [signal.SIGINT]
