"""The library that XLA's CPU backend multiplies matrices with: YNNPACK by default, or Eigen.

The compiler's option is experimental by its own name: a jaxlib that does not know it is not asked.
"""

import functools
import os

import jax

from ift_jax.sharding import rules

# An empty list of what YNNPACK is given: Eigen multiplies then.
EIGEN: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}


def train_options() -> dict[str, str | bool]:
    """The compiler options of a train step for the platform that programs are compiled for.

    On a CPU they choose Eigen, unless the variable XLA_FLAGS sets the option already. T5 1.1 small
    took 3.78 s a step with it and 4.06 s with YNNPACK (two AVX-512 cores, nothing else running;
    oneDNN: 3.75 s), and 7.7 and 8.4 s without AVX-512. The step of SmolLM2-135M's shape differed by
    2% or less.
    """
    return dict(EIGEN) if can_choose_eigen() else {}


def can_choose_eigen() -> bool:
    """Whether a program may ask for Eigen: on a CPU, if the compiler knows the option.

    What the user has set in the variable XLA_FLAGS stays.
    """
    if rules.platform() != "cpu" or any(name in os.environ.get("XLA_FLAGS", "") for name in EIGEN):
        return False
    return compiler_takes(tuple(EIGEN))


@functools.cache
def compiler_takes(names: tuple[str, ...]) -> bool:
    """Whether this jaxlib knows options of these names: it compiles an empty program with them."""
    options: dict[str, str | bool] = dict.fromkeys(names, "")
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return False
    return True
