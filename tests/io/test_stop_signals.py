"""Ctrl-C in the middle of an import, of a garbage collection and of a finalizer."""

import _imp
import gc
import importlib
import importlib.machinery
import signal
import sys
import threading
import types
import weakref

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


class _Object:
    """Something that a weak reference can name."""


def _collect(interrupt):
    """Interrupts in the collector's own callback."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        interrupt()

    gc.callbacks.append(callback)
    gc.collect()


def _collect_weakly_referenced(interrupt):
    """Interrupts in the callback of a weak reference to what the collector finds."""
    object_ = _Object()
    object_.itself = object_
    reference = weakref.ref(object_, lambda reference: interrupt())
    del object_
    gc.collect()
    assert reference() is None


def _release_weakly_referenced(interrupt):
    """Interrupts in the callback of a weak reference to what the last name lets go."""
    object_ = _Object()
    reference = weakref.ref(object_, lambda reference: interrupt())
    del object_
    assert reference() is None


def _release(interrupt):
    """Interrupts in a finalizer."""

    class Finalized:
        def __del__(self):
            interrupt()

    Finalized()


@pytest.mark.parametrize(
    "finalize", [_collect, _collect_weakly_referenced, _release_weakly_referenced, _release]
)
def test_ctrl_c_is_not_lost_where_python_drops_what_is_raised(finalize):
    came = []

    def interrupt():
        came.append(True)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
        finalize(interrupt)
        threading.Event().wait(60)  # The interrupt comes here.
    assert came == [True]


def test_ctrl_c_that_is_dropped_twice_is_not_lost():
    dropped = []

    def wait():
        try:
            threading.Event().wait(60)  # The interrupt comes here for the second time.
        except KeyboardInterrupt:
            dropped.append(True)
            raise

    with pytest.raises(KeyboardInterrupt), interrupts_when_safe():
        _release(lambda: signal.raise_signal(signal.SIGINT))
        _release(wait)
        threading.Event().wait(60)  # And here for the third.
    assert dropped == [True]


def test_another_error_that_python_drops_is_reported_as_before(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    hook = sys.unraisablehook

    class Finalized:
        def __del__(self):
            raise ValueError

    with interrupts_when_safe():
        Finalized()
    assert reported == [ValueError]
    assert sys.unraisablehook is hook


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
