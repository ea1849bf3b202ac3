"""The program of a run: model, optimizer, mesh and shapes, from its config alone.

It needs neither data nor weights nor the devices that it is meant for, so it can be compiled
anywhere; `ift plan` does so for a TPU topology.
"""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import optax
from jax.sharding import Mesh

from ift_jax.config.schema import Config
from ift_jax.data.batches import batch_arrays
from ift_jax.errors import UserError
from ift_jax.models.model import Model, Params, trained_model
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import config_sizes, make_mesh
from ift_jax.sharding.product_library import train_options
from ift_jax.sharding.trees import abstract
from ift_jax.training.optimizer import LearningRateSchedule, make_learning_rate, make_optimizer
from ift_jax.training.state import State, state_of, state_shardings
from ift_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class TrainProgram:
    """Everything that the compiled train step depends on.

    Attributes:
        config: The run's config, with `model.vocab_size` filled in.
        n_tasks: The number of tasks in the mixture.
        mesh: The mesh of the devices that the program is for.
        model: The model, with its adapters and frozen parameters.
        optimizer: Gives the direction of an update.
        learning_rate: Gives the learning rate of a step.
    """

    config: Config
    n_tasks: int
    mesh: Mesh
    model: Model
    optimizer: optax.GradientTransformation
    learning_rate: LearningRateSchedule

    @classmethod
    def from_config(
        cls,
        config: Config,
        n_tasks: int,
        n_steps: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> "TrainProgram":
        """Build the program.

        Args:
            config: The run's config, with `model.vocab_size` filled in.
            n_tasks: The number of tasks in the mixture.
            n_steps: The number of steps of the whole run, for the learning-rate schedule.
            devices: The devices of the mesh; by default those of this machine.

        Raises:
            UserError: The mesh, the batch or the experts do not fit the number of devices.
        """
        mesh = make_mesh(config.mesh, devices)
        _check_sizes(config, mesh)
        model = trained_model(config)
        trained_axes, _ = model.split(model.logical_axes)
        return cls(
            config=config,
            n_tasks=n_tasks,
            mesh=mesh,
            model=model,
            optimizer=make_optimizer(config.optimizer, trained_axes),
            learning_rate=make_learning_rate(config.optimizer, n_steps),
        )

    @functools.cached_property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shape, dtype and sharding of each array of a global batch, by name."""
        return {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(self.mesh, shape))
            for name, (shape, dtype) in batch_arrays(self.config).items()
        }

    @functools.cached_property
    def state_shapes(self) -> State:
        """The shape, dtype and sharding of each array of the state."""
        shapes = jax.eval_shape(self._state_of, self.model.fresh_shapes)
        over_data = self.config.optimizer.shard_over_data
        return abstract(shapes, state_shardings(self.model, self.mesh, shapes, over_data))

    @property
    def state_shardings(self) -> State:
        """The sharding of each array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state_shapes)

    def fresh_state(self) -> State:
        """Return the state at step 0 with fresh parameters; for use inside `jax.jit`."""
        return self._state_of(self.model.init(jax.random.key(self.config.seed)))

    def _state_of(self, params: Params) -> State:
        """Return the state at step 0 with the given parameters; for use inside `jax.jit`."""
        trains_pairs = self.config.preference.trains_pairs
        return state_of(self.model, params, self.optimizer, self.n_tasks, trains_pairs)

    def lower(self) -> jax.stages.Lowered:
        """Lower the train step, its state donated, for the mesh; allocate nothing."""
        train_step = make_train_step(
            self.model, self.optimizer, self.learning_rate, self.config, self.n_tasks
        )
        with jax.set_mesh(self.mesh):
            jitted = jax.jit(
                train_step,
                donate_argnums=0,
                out_shardings=(self.state_shardings, None),
                compiler_options=train_options(),
            )
            return jitted.lower(self.state_shapes, self.batch_shapes)

    def compile_in_background(self) -> Future[jax.stages.Compiled]:
        """Start compiling the train step on a thread of its own."""
        # The calling thread needs the shapes too; computing them first avoids doing it twice.
        _ = self.state_shapes
        pool = ThreadPoolExecutor(max_workers=1)
        future = pool.submit(lambda: self.lower().compile())
        pool.shutdown(wait=False)
        return future


def set_compilation_cache(folder: str) -> None:
    """Make JAX cache compiled programs in `folder`, if given."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _check_sizes(config: Config, mesh: Mesh) -> None:
    """Raise a UserError unless rows and experts divide over the devices, if there are experts."""
    sizes = config_sizes(mesh)
    n_experts = getattr(config.model, "n_experts", 0)
    if sizes["expert"] > 1 and (not n_experts or n_experts % sizes["expert"]):
        has = f"{n_experts} experts" if n_experts else "no experts"
        raise UserError(
            f"config.mesh.expert: {sizes['expert']}, but the model has {has}; expected a divisor"
            + ("" if n_experts else ", 1 here")
        )
    for name in ("router_balance", "router_z_loss"):
        if getattr(config.loss, name) and not n_experts:
            raise UserError(
                f"config.loss.{name}: {getattr(config.loss, name):g}, but the model has no "
                "experts; expected 0"
            )
    n_shards = sizes["data"] * sizes["fsdp"] * sizes["expert"]
    n_rows = config.train.batch_size // config.train.gradient_accumulation_steps
    if n_rows % n_shards:
        raise UserError(
            f"config.train.batch_size: {n_rows} rows per microbatch do not divide over the "
            f"{n_shards} devices of the mesh axes data x fsdp x expert"
        )
