"""From a config to everything that a run is made of, before any step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ift_jax.checkpoint.manager import Checkpoints, check_frozen
from ift_jax.checkpoint.model_source import init_params
from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError
from ift_jax.models.attention.mask import KERNELS, choose
from ift_jax.models.model import build_model, join, resolve_vocab
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import config_sizes, in_words
from ift_jax.text.tokenizers.load import Tokenizer
from ift_jax.training.state import State, state_of
from ift_jax.training.train_program import Program


@dataclasses.dataclass(frozen=True)
class Run(Program):
    """What `prepare_run` resolves: a program with its data."""

    tokenizer: Tokenizer
    train: Mixture
    eval: Mixture
    heldout: Mixture | None
    plan: BatchPlan

    def device_batch(self, step: int) -> dict[str, jax.Array]:
        """The batch of a step, each process building the rows that its devices hold."""
        shapes = {name: like.shape for name, like in self.batch_shapes.items()}
        return rules.put_batch(self.mesh, shapes, lambda rows: self.plan.batch(step, rows))

    def initial_state(self) -> State:
        """The state at step 0, of fresh parameters or of those that `model.init_from` names."""
        shardings = self._shardings
        if not self.config.model.init_from:
            # It runs once: on a CPU, which compiles longer than it computes, as it is written.
            on_cpu = rules.platform() == "cpu"
            options = {"xla_backend_optimization_level": 0} if on_cpu else {}
            fresh = jax.jit(
                lambda: self._fresh(), out_shardings=shardings, compiler_options=options
            )
            return fresh()
        plain = build_model(self.config.model)
        params = init_params(plain, self.config, shardings["params"], self.tokenizer)

        def make(params: Any) -> State:
            # Adapters begin as in a run from nothing; of the other fresh ones none is computed.
            params = join(self.model.init(jax.random.key(self.config.seed)), params)
            return state_of(self.model, params, self.tx, len(self.train.tasks))

        return jax.jit(make, out_shardings=shardings, donate_argnums=0)(params)

    def stored(self, state: State) -> State:
        """What of a state is in a checkpoint: not what `model.init_from` holds unchanged."""
        without = {"frozen"} if self.config.model.init_from else set()
        return {name: part for name, part in state.items() if name not in without}

    def restored_state(self, checkpoints: Checkpoints, step: int) -> State:
        """The state of a checkpoint; UserError where the frozen parameters are other ones now."""
        state = checkpoints.restore(step, self.stored(self.state_shapes))
        if state.keys() == self.state_shapes.keys():
            return state
        frozen = self.initial_state()["frozen"]
        check_frozen(frozen, state["frozen_sum"], self.config.model.init_from)
        return state | {"frozen": frozen}

    def describe(self) -> list[str]:
        """A few lines on what is about to run."""
        plan, config = self.plan, self.config
        mesh = in_words(config_sizes(self.mesh))
        return [
            f"model: {config.model.architecture}, {self.model.n_params:,} parameters, "
            f"{config.model.dtype}; mesh: {mesh}; attention: {attention_of(config)}",
            f"data: {len(self.train.tasks)} tasks, {sum(map(len, self.train.stores)):,} examples, "
            f"{plan.steps_per_epoch:,.1f} steps an epoch, fill {plan.fill:.1%}; {plan.n_steps:,} "
            f"steps of {config.train.batch_size} rows",
        ]


def attention_of(config: Config) -> str:
    """The implementations of attention that a run takes, and why it takes no kernel on a GPU."""
    model = config.model
    decoder = isinstance(model, DecoderConfig)
    L = config.row_lengths.decoder
    S = config.row_lengths.encoder or L
    windowed = isinstance(model, DecoderConfig) and model.sliding_window > 0
    chosen = choose(model.attention, L, S, windowed=windowed, biased=False)
    if model.attention == "auto" and chosen not in KERNELS and rules.platform() == "gpu":
        chosen += " (the kernel is for NVIDIA GPUs from Ampere on)"
    own = choose(model.attention, S, S, windowed=False, biased=True)
    return chosen if decoder else f"{chosen} across, {own} inside a stack, which has a bias"


def prepare_run(config: Config, log: Callable[[str], None]) -> Run:
    """Opens or prepares the stores, plans the order, and defines model and optimizer.

    Nothing is put on a device yet.

    Raises:
        UserError: anything in the config or data that is wrong.
    """
    if config.model.remat == "offload" and jax.default_backend() == "cpu":
        raise UserError(
            "config.model.remat: 'offload' moves to the host's memory, and the devices "
            "here are the host (cpu); expected 'full'"
        )
    tokenizer, train = open_or_prepare(config, "train", log=log)
    if config.model.architecture == "decoder":
        from ift_jax.text.examples import ExampleFormatter
        from ift_jax.text.template_lint import lint

        for finding in lint(ExampleFormatter.from_config(config, tokenizer)):
            if not finding.ok:
                raise UserError(
                    f"config.format.template: {finding.check}: {finding.detail}; all "
                    "checks: ift inspect --lint"
                )
    _, evaluation = open_or_prepare(config, "eval", log=log)
    heldout = None
    if config.data.heldout_mixture:
        _, heldout = open_or_prepare(config, "heldout", log=log)
    model_config = resolve_vocab(config.model, tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    plan = BatchPlan.from_config(config, train)
    return Run.of_config(
        config,
        len(train.tasks),
        plan.n_steps,
        tokenizer=tokenizer,
        train=train,
        eval=evaluation,
        heldout=heldout,
        plan=plan,
    )
