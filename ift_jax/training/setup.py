"""From a config to everything that a run is made of, before its first step."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import jax

from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError, counted
from ift_jax.models.attention.implementations import KERNEL_PLATFORMS, choose_implementation
from ift_jax.models.model import resolve_vocab
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.sharding.mesh import config_sizes, describe_mesh
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.training.pair_checks import check_pairs
from ift_jax.training.train_program import TrainProgram


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's program and its data, as `prepare_run` resolves them.

    Attributes:
        program: What is compiled.
        tokenizer: The run's tokenizer.
        train: The mixture that is trained on.
        eval: Unseen examples of the trained tasks.
        heldout: Tasks that are never trained on, if the config names some.
        plan: The order of the training batches.
    """

    program: TrainProgram
    tokenizer: Tokenizer
    train: Mixture
    eval: Mixture
    heldout: Mixture | None
    plan: BatchPlan

    @property
    def config(self) -> Config:
        """The run's config, with `model.vocab_size` filled in."""
        return self.program.config

    @property
    def n_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.plan.n_steps

    def device_batch(self, step: int) -> dict[str, jax.Array]:
        """Return a step's global batch; each process builds only the rows that its devices hold.

        Args:
            step: The number of batches before this one.
        """
        shapes = {name: like.shape for name, like in self.program.batch_shapes.items()}
        return put_batch(self.program.mesh, shapes, lambda rows: self.plan.batch(step, rows))

    def describe(self) -> list[str]:
        """Return a few lines on what is about to run."""
        config = self.config
        plan = self.plan
        mesh = describe_mesh(config_sizes(self.program.mesh))
        n_examples = sum(len(store) for store in self.train.stores)
        return [
            f"model: {config.model.architecture}, {self.program.model.n_params:,} parameters, "
            f"{config.model.dtype}; mesh: {mesh}; attention: {describe_attention(config)}",
            f"data: {counted(len(self.train.tasks), 'task')}, {counted(n_examples, 'example')}"
            f"{self._left_out()}, {plan.steps_per_epoch:,.1f} steps per epoch, fill "
            f"{plan.fill:.1%}; {counted(plan.n_steps, 'step')} of "
            f"{counted(config.train.batch_size, 'row')} of {_row(config)} tokens",
        ]

    def _left_out(self) -> str:
        """Describe how many examples of the trained tasks are not in their stores, and why."""
        dropped = Counter[str]()
        for store in self.train.stores:
            dropped.update(store.manifest["dropped"])
        if not dropped:
            return ""
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(dropped.items()))
        return f" ({dropped.total():,} dropped: {reasons})"


def _row(config: Config) -> str:
    return " + ".join(f"{tokens:,}" for tokens in config.row_lengths if tokens)


def describe_training(config: Config) -> str:
    """Describe in a line how a run trains, and when it saves and evaluates: defaults included."""
    optimizer = config.optimizer
    warmup = optimizer.warmup_steps or f"{optimizer.warmup_ratio:.0%}"
    saves = _every(config.train.save_every, "a checkpoint")
    evaluates = _every(config.train.eval_every, "an eval loss")
    decay = ""
    if optimizer.schedule == "wsd":
        decay = f", {optimizer.decay_shape} decay "
        decay += str(optimizer.decay_steps or f"{optimizer.decay_ratio:.0%}")
    return (
        f"optimizer: {optimizer.name}, {optimizer.schedule} {optimizer.learning_rate:g}, warm-up "
        f"{warmup}{decay}; {saves}, {evaluates}"
    )


def _every(steps: int, what: str) -> str:
    return f"{what} every {counted(steps, 'step')}" if steps else f"{what} at the end"


def describe_attention(config: Config) -> str:
    """Name the attention implementations of a run, and why it uses no kernel on a GPU."""
    model = config.model
    lengths = config.row_lengths
    if isinstance(model, DecoderConfig):
        windowed = model.sliding_window > 0
        return _chosen_attention(
            model.attention, lengths.decoder, lengths.decoder, windowed, model.attention_sinks
        )
    if model.block == "gemma":
        windowed = model.sliding_window > 0
        in_encoder = _chosen_attention(
            model.attention, lengths.encoder, lengths.encoder, windowed=windowed
        )
        n_keys = lengths.decoder + (lengths.encoder if model.merged_attention else 0)
        in_decoder = _chosen_attention(
            model.attention, lengths.decoder, n_keys, windowed, no_kernel=model.merged_attention
        )
        return f"{in_encoder} in the encoder, {in_decoder} in the decoder"
    cross = _chosen_attention(model.attention, lengths.decoder, lengths.encoder, windowed=False)
    self_attention = choose_implementation(
        model.attention, lengths.encoder, lengths.encoder, windowed=False, biased=True
    )
    return f"{cross} across, {self_attention} inside a stack, which has a bias"


def _chosen_attention(
    asked: str, n_queries: int, n_keys: int, windowed: bool, no_kernel: bool = False
) -> str:
    """Name the implementation of an attention without bias; `no_kernel`: none can read its mask."""
    chosen = choose_implementation(asked, n_queries, n_keys, windowed=windowed, biased=no_kernel)
    if asked == "auto" and chosen not in KERNEL_PLATFORMS and rules.platform() == "gpu":
        return f"{chosen} (the kernel is for NVIDIA GPUs from Ampere on)"
    return chosen


def prepare_run(config: Config, log: Callable[[str], None], run_tokenizer: str = "") -> Run:
    """Open or prepare the stores, plan the batches, and define model and optimizer.

    Nothing is put on a device yet.

    Args:
        config: The run's config.
        log: Receives lines on the progress of preparation.
        run_tokenizer: The tokenizer that the run trained when it began, if it did.

    Raises:
        UserError: The config or data is invalid.
    """
    if config.model.remat == "offload" and jax.default_backend() == "cpu":
        raise UserError(
            "config.model.remat: 'offload' moves activations to the host's memory, and the "
            "devices here are the host (cpu); expected 'full'"
        )
    tokenizer, train = open_or_prepare(config, "train", log=log, run_tokenizer=run_tokenizer)
    if config.model.architecture == "decoder":
        _check_template(config, tokenizer)
    _, eval_mixture = open_or_prepare(config, "eval", log=log, run_tokenizer=run_tokenizer)
    heldout = None
    if config.data.heldout_mixture:
        _, heldout = open_or_prepare(config, "heldout", log=log, run_tokenizer=run_tokenizer)
    for which, mixture in (("train", train), ("eval", eval_mixture), ("heldout", heldout)):
        if mixture is not None:
            check_pairs(config, which, mixture)
    config = dataclasses.replace(config, model=resolve_vocab(config.model, tokenizer.vocab_size))
    plan = BatchPlan.from_config(config, train)
    return Run(
        program=TrainProgram.from_config(config, len(train.tasks), plan.n_steps),
        tokenizer=tokenizer,
        train=train,
        eval=eval_mixture,
        heldout=heldout,
        plan=plan,
    )


def _check_template(config: Config, tokenizer: Tokenizer) -> None:
    """Raise a UserError if the chat template fails a check of `ift inspect --lint`."""
    # Imported here: a run of an encoder-decoder needs neither.
    from ift_jax.text.examples import ExampleFormatter
    from ift_jax.text.template_lint import lint

    for finding in lint(ExampleFormatter.from_config(config, tokenizer)):
        if not finding.ok:
            raise UserError(
                f"config.format.template: {finding.check}: {finding.detail}; for all checks "
                "run: ift inspect --lint"
            )
