"""Ctrl-C in the middle of an import."""

import importlib
import signal
import sys
import threading

import pytest

from ift_jax.io.stop_signals import interrupts_after_imports

MODULE = "interrupted_import"


def test_ctrl_c_during_an_import_waits_for_its_end(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nFINISHED = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), interrupts_after_imports():
        importlib.import_module(MODULE)
        threading.Event().wait(60)  # The interrupt comes here.
    assert sys.modules.pop(MODULE).FINISHED
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_outside_of_imports_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts_after_imports():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("was not interrupted")


def test_another_handler_stays():
    handled = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
    try:
        with interrupts_after_imports():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert handled == [signal.SIGINT]
