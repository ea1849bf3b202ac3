"""Programs of decoding, compiled before they are called.

Those of batches to come are compiled on other threads while earlier batches are decoded. A set of
prompts needs a program for each of a few padded lengths. Compiled one after the other, each when
its first batch comes, they keep one core busy and the device waiting.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from ift_jax.decoding.block_loops import prompt_program, token_program
from ift_jax.decoding.request_batch import BatchArguments, RequestBatch
from ift_jax.models.model import Model, Params
from ift_jax.sharding.trees import abstract

_N_AHEAD = 256  # Batches: far more than are decoded while one program compiles.
_N_THREADS = 2  # Tracing holds Python's lock for a third of the time.
# One loop serves prompts of several lengths: the second thread that needs it finds it compiled.
_ONE_LOOP = threading.Lock()


class CompileAhead:
    """Compiles the programs of batches in their order; a context that ends with the last batch."""

    def __init__(
        self, n: int, key_of: Callable[[int], Hashable], compile_batch: Callable[[int], None]
    ):
        """Begin to compile.

        While all batches have one key nothing would overlap. Several processes must compile in the
        same order, so for them nothing is compiled ahead.

        Args:
            n: The number of batches.
            key_of: Gives what decides the programs of a batch. It is asked of a batch once, and
                not long before the batch's turn: a key takes as long as laying the batch out.
            compile_batch: Compiles the programs of a batch, so that calling them compiles nothing.
        """
        self._n = n if jax.process_count() == 1 else 0
        self._key_of = key_of
        self._compile_batch = compile_batch
        self._keys: list[Hashable] = []
        # None for a key whose programs the caller compiles itself by calling them.
        self._compiled: dict[Hashable, Future[None] | None] = {}
        self._pool = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="compile-ahead")
        self._look_ahead(_N_AHEAD)

    def _look_ahead(self, end: int) -> None:
        """Have the programs of the batches before `end` compiled that are not yet."""
        begin = len(self._keys)
        self._keys += map(self._key_of, range(begin, min(end, self._n)))
        if len({*self._compiled, *self._keys[begin:]}) < 2:
            return
        for number, key in enumerate(self._keys[begin:], begin):
            if key not in self._compiled:
                self._compiled[key] = self._pool.submit(self._compile_batch, number)

    def wait(self, number: int) -> None:
        """Wait for the programs of a batch; raises what their compilation raised.

        Args:
            number: The number of the batch; batches come in their order.
        """
        self._look_ahead(number + _N_AHEAD)
        if number < self._n:
            compiled = self._compiled.setdefault(self._keys[number], None)
            if compiled is not None:
                compiled.result()

    def __enter__(self) -> "CompileAhead":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def unstacked(model: Model, params: Params) -> Params:
    """The parameters of `model.unrolled`; of shapes, the shapes: their program is compiled then."""
    if not isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
        return model.unstack(params)
    lowered = Model.unstack.lower(model, params)
    return abstract(lowered.out_info, lowered.compile().output_shardings)


def compile_batch(
    model: Model,
    params: Params,
    batch: RequestBatch,
    arguments: BatchArguments,
) -> None:
    """Compile the beginning of a batch and, without beams, the loop that makes its tokens.

    Args:
        model: An unrolled model.
        params: The model's parameters.
        batch: The batch.
        arguments: What its programs read.
    """
    prompts, layout, program, settings = arguments
    lowered = prompt_program(prompts).lower(model, layout, params, prompts)
    begin = lowered.compile()
    if batch.beams is not None or batch.is_done:
        return
    cache, state, _ = abstract(lowered.out_info, begin.output_shardings)
    if jax.sharding.get_abstract_mesh().empty:  # Then nothing is committed to a device.
        cache, state = jax.eval_shape(lambda *begun: begun, cache, state)
    loop = token_program(settings)
    n_made = np.int32(0)
    with _ONE_LOOP:
        lowered = loop.lower(model, program, params, cache, state, settings, batch.wanted_B, n_made)
        lowered.compile()
