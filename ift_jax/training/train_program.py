"""The program of a run: model, optimizer, mesh and shapes, of its config alone.

It needs neither data nor weights nor the devices that it is for, so it can be compiled anywhere.
"""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import jax
import optax
from jax.sharding import Mesh

from ift_jax.config.schema import Config
from ift_jax.data.batches import batch_arrays
from ift_jax.errors import UserError
from ift_jax.models.model import Model, trained_model
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import config_sizes, make_mesh
from ift_jax.sharding.trees import abstract
from ift_jax.training import step as step_lib
from ift_jax.training.optimizer import Schedule, make_optimizer, make_schedule
from ift_jax.training.state import State, init_state, state_shardings


@dataclasses.dataclass(frozen=True)
class Program:
    """What of a run is compiled. `config.model.vocab_size` is filled in."""

    config: Config
    n_tasks: int
    mesh: Mesh
    model: Model
    tx: optax.GradientTransformation
    schedule: Schedule

    @classmethod
    def of_config(
        cls,
        config: Config,
        n_tasks: int,
        n_steps: int,
        devices: Sequence[jax.Device] | None = None,
        **more: Any,
    ) -> Self:
        """The program over `devices` (default: this machine's); `more` are a subclass's fields.

        Raises:
            UserError: the mesh or the batch does not fit the number of devices.
        """
        mesh = make_mesh(config.mesh, devices)
        sizes = config_sizes(mesh)
        shards = sizes["data"] * sizes["fsdp"]
        rows = config.train.batch_size // config.train.gradient_accumulation_steps
        if rows % shards:
            raise UserError(
                f"config.train.batch_size: {rows} rows a microbatch do not divide over the "
                f"{shards} devices of the mesh axes data x fsdp"
            )
        model = trained_model(config)
        return cls(
            config=config,
            n_tasks=n_tasks,
            mesh=mesh,
            model=model,
            tx=make_optimizer(config.optimizer, model.split(model.logical_axes)[0]),
            schedule=make_schedule(config.optimizer, n_steps),
            **more,
        )

    @functools.cached_property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape, dtype and sharding of a global batch's arrays."""
        return {
            name: jax.ShapeDtypeStruct(
                shape, dtype, sharding=rules.batch_sharding(self.mesh, shape)
            )
            for name, (shape, dtype) in batch_arrays(self.config).items()
        }

    def _fresh(self) -> State:
        return init_state(self.model, self.tx, self.config.seed, self.n_tasks)

    @functools.cached_property
    def state_shapes(self) -> State:
        """Shape, dtype and sharding of the state's arrays."""
        shapes = jax.eval_shape(lambda: self._fresh())
        over_data = self.config.optimizer.shard_over_data
        return abstract(shapes, state_shardings(self.model, self.mesh, shapes, over_data))

    @property
    def _shardings(self) -> State:
        return jax.tree.map(lambda leaf: leaf.sharding, self.state_shapes)

    def lower(self) -> jax.stages.Lowered:
        """The train step, its state donated, lowered for the mesh; nothing is allocated."""
        train_step = step_lib.make_train_step(
            self.model, self.tx, self.schedule, self.config, self.n_tasks
        )
        jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(self._shardings, None))
        with jax.set_mesh(self.mesh):
            return jitted.lower(self.state_shapes, self.batch_shapes)

    def compiling(self) -> Future[jax.stages.Compiled]:
        """The train step's compilation, in a thread of its own."""
        _ = self.state_shapes  # Wanted by this thread as well: made once.
        pool = ThreadPoolExecutor(1)
        future = pool.submit(lambda: self.lower().compile())
        pool.shutdown(wait=False)
        return future
