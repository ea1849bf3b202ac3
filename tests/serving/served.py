"""A small random model behind a real HTTP server, for the tests of `ift serve`."""

import contextlib
import importlib
import logging
import socket
import threading
import time

import pytest

from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.models import build_model
from ift_jax.serving.answer_queue import AnswerQueue
from ift_jax.serving.served_model import ServedModel
from tests import small_models
from tests.small_models import random_params
from tests.text.small_tokenizers import sentencepiece_tokenizer

# Prompts and batches have one shape, so that few programs are compiled.
BATCH_SIZE = 4
LENGTH = 128


def compile_few_programs(monkeypatch) -> None:
    small_models.compile_one_program(monkeypatch)
    for name in ("generate", "request_batch"):
        module = importlib.import_module(f"ift_jax.decoding.{name}")
        monkeypatch.setattr(module, "power_of_two", lambda n: max(n, BATCH_SIZE))


class GatedGenerator:
    """A generator that stops before every look at a batch while its gate is closed."""

    def __init__(self, generator):
        self._generator = generator
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self._generator, name)

    def stream(self, requests, block):
        for outputs in self._generator.stream(requests, block=block):
            assert self.gate.wait(60)
            yield outputs

    @contextlib.contextmanager
    def closed(self):
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


def open_model(**options) -> ServedModel:
    text_generator, generator = small_models.open_random_model()
    options = {"max_answers": BATCH_SIZE, "seed": 7} | options
    return ServedModel("tiny", text_generator, GatedGenerator(generator), **options)


def open_other_model(config) -> ServedModel:
    """A model of another config, for tests that read bodies alone."""
    model = build_model(config.model)
    text_generator = TextGenerator(config, sentencepiece_tokenizer(), model)
    return ServedModel("tiny", text_generator, text_generator.generator(random_params(model)))


@contextlib.contextmanager
def serving(model, *, timeout=60.0, max_waiting=128, send_buffer=0):
    """Yields a server, its queue, and a client."""
    httpx = pytest.importorskip("httpx", reason="the server is asked with it")
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from ift_jax.serving import http_server

    opened = http_server.open_socket("127.0.0.1", 0, timeout)
    if send_buffer:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    queue = AnswerQueue(model.generator, max_waiting=max_waiting, batch_size=BATCH_SIZE)
    with http_server.HttpServer(model, queue, opened, timeout=timeout) as server:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            yield server, queue, client


def wait_until(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@contextlib.contextmanager
def no_complaints():
    """Fails if anything is logged as an error, but for a reader that was too slow."""
    records = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append
    too_slow = "ASGI callable returned without completing response."
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    messages = [record.getMessage() for record in records]
    assert not [message for message in messages if message != too_slow]
