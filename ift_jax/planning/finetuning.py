"""What a finetuning run does not say, chosen from its model, its data and its devices.

`choose` is a pure function of `Facts`, so that each rule can be read, and tested, here. A field
that the user sets is never chosen, and the others follow from it.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ift_jax.config.data import RowLengths
from ift_jax.config.learning_rate import PREFERENCE, PREFERENCE_LORA
from ift_jax.config.schema import Config, DecoderConfig, LoraConfig, ModelConfig
from ift_jax.config.unread_fields import is_read
from ift_jax.errors import counted
from ift_jax.text.chat_templates.registry import NAMES

# A row is as long as one of these, the shortest that keeps KEPT of the examples.
LENGTHS = tuple(2**power for power in range(6, 18))
KEPT = 0.99
EXAMPLES_PER_ROW = 4  # A row has room for this many examples of mean length: packing fills it.
_FILL = 0.95  # The usual share of a packed row that holds tokens.

# Examples in a batch: a run has about STEPS steps within these bounds.
STEPS = 150
_BATCH_BOUNDS = (4, 64)
# Epochs by the number of examples: the more of them, the fewer times each is seen.
_EPOCHS = ((20_000, 3.0), (200_000, 2.0), (math.inf, 1.0))
EVALS_PER_RUN = 10
SAVES_PER_RUN = 5

# The rule of Thinking Machines' tinker-cookbook: the rate of a model of width 2,000, times
# (2000 / width) to a power that was fitted for each family.
_ADAMW_RATE = 5e-5
_LORA_FACTOR = 10.0
_WIDTH = 2000
_WIDTH_POWERS = {"qwen": 0.0775}
_DEFAULT_WIDTH_POWER = 0.781  # Llama's.
_LEAST_WIDTH = 512  # The rule was not fitted on narrower models.
# T5 is finetuned with Adafactor at a constant rate (arXiv:1910.10683, section 3.1.2).
_ADAFACTOR_RATE = 1e-3

# Bytes per parameter: float32, and the float32 gradient and two moments of a trained one.
_BYTES_PER_PARAM = 4
_BYTES_PER_TRAINED_PARAM = 12
_BYTES_PER_FROZEN_PARAM = {"none": 4, "int8": 8.5 / 8, "nf4": 4.5 / 8}  # By `lora.quantize`.
_BYTES_PER_ANSWERING_PARAM = 2  # In bfloat16.
_USABLE_MEMORY = 0.8  # The rest is for the program, the head's chunks, and other processes.


class Choice(NamedTuple):
    """A field of the config that was chosen.

    Attributes:
        field: Its dotted name, such as "train.batch_size".
        value: What was chosen.
        reason: Why, as a phrase for the user.
    """

    field: str
    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the choices follow from.

    Attributes:
        model: The model that is finetuned.
        family: Its model type as Hugging Face calls it, such as "llama"; "" if unknown.
        n_params: Its number of parameters.
        encoder_lengths: int64[N], the encoder tokens of a sample of the examples; 0 for a decoder.
        decoder_lengths: int64[N], their (decoder) tokens.
        n_examples: The estimated number of examples that they become.
        has_eval_split: Whether some rows are held out, as of files of fewer than 20 rows none are.
        platform: "cpu", "gpu" or "tpu".
        n_devices: The number of devices over all processes.
        device_bytes: The memory of one device.
    """

    model: ModelConfig
    family: str
    n_params: int
    encoder_lengths: npt.NDArray[np.int64]
    decoder_lengths: npt.NDArray[np.int64]
    n_examples: int
    has_eval_split: bool
    platform: str
    n_devices: int
    device_bytes: int


class _Chooser:
    """Collects choices; a field that was given is taken as it is."""

    def __init__(self, config: Config, given: Collection[str]):
        self._config = config
        self._given = given
        self.choices: list[Choice] = []

    def given(self, field: str) -> Any:
        """The value that was given for the field, or None."""
        section, _, name = field.partition(".")
        return getattr(getattr(self._config, section), name) if field in self._given else None

    def choose(self, field: str, value: Any, reason: str) -> Any:
        """Returns the field's value: the given one, or `value`, which is then a choice."""
        if field in self._given:
            return self.given(field)
        self.choices.append(Choice(field, value, reason))
        return value

    def choose_if_read(self, field: str, value: Any, reason: str) -> None:
        """Chooses a value for the field unless nothing reads it because of what was given."""
        if is_read(self._config, field):
            self.choose(field, value, reason)


def choose(facts: Facts, config: Config, given: Collection[str]) -> list[Choice]:
    """Chooses the fields of a finetuning run.

    Args:
        facts: What the run is made of.
        config: The run's config, with the fields that the user set.
        given: Their dotted names.

    Returns:
        The choices, in the order in which a reader wants them.
    """
    chooser = _Chooser(config, given)
    lengths = _choose_lengths(chooser, facts)
    n_steps = _choose_batches(chooser, facts, lengths, config.lora)
    if config.preference.trains_pairs:
        _choose_optimizer_of_pairs(chooser, config.lora.rank)
    else:
        _choose_optimizer(chooser, facts, config.lora.rank)
    _choose_rhythm(chooser, n_steps, facts.has_eval_split)
    if not facts.has_eval_split:
        reason = "too few rows to hold some out: every eval loss is that of trained ones"
        chooser.choose("data.eval_split", config.data.split, reason)
    return chooser.choices


def choose_format(
    model: ModelConfig, has_template: bool, config: Config, given: Collection[str]
) -> list[Choice]:
    """Chooses the chat template, on which the lengths of the examples depend.

    Args:
        model: The model that is finetuned.
        has_template: Whether its folder holds a chat template.
        config: The run's config, with the fields that the user set.
        given: Their dotted names.
    """
    chooser = _Chooser(config, given)
    if not isinstance(model, DecoderConfig) and model.block == "gemma":
        chooser.choose("format.input_eos", False, "a T5Gemma's encoder reads no EOS")
    if has_template:
        chooser.choose("format.template", "model", "the model's own chat template")
        return chooser.choices
    if not isinstance(model, DecoderConfig):
        chooser.choose("format.template", "plain", "an encoder-decoder reads inputs and targets")
        return chooser.choices
    template = chooser.choose("format.template", "chatml", "the model has no chat template")
    if controls := NAMES.get(template):
        chooser.choose("tokenizer.added_tokens", controls, f"the control tokens of {template}")
    return chooser.choices


def _choose_lengths(chooser: _Chooser, facts: Facts) -> RowLengths:
    limit = facts.model.max_length
    if isinstance(facts.model, DecoderConfig):
        length = _row_length(facts.decoder_lengths, limit)
        reason = _kept(facts.decoder_lengths, length, limit)
        return RowLengths(0, chooser.choose("data.max_length", length, reason))
    inputs = _row_length(facts.encoder_lengths, limit)
    targets = _row_length(facts.decoder_lengths, limit)
    return RowLengths(
        chooser.choose("data.inputs_length", inputs, _kept(facts.encoder_lengths, inputs, limit)),
        chooser.choose(
            "data.targets_length", targets, _kept(facts.decoder_lengths, targets, limit)
        ),
    )


def _row_length(lengths: npt.NDArray[np.int64], limit: int) -> int:
    """The shortest of LENGTHS that keeps enough examples and that packing can fill."""
    needed = max(float(np.quantile(lengths, KEPT)), EXAMPLES_PER_ROW * float(lengths.mean()))
    length = next((length for length in LENGTHS if length >= needed), LENGTHS[-1])
    return min(length, limit) if limit else length


def _kept(lengths: npt.NDArray[np.int64], length: int, limit: int) -> str:
    kept = float((lengths <= length).mean())
    reason = f"keeps {kept:.1%} of the examples; the longest has {int(lengths.max()):,} tokens"
    if length == limit:
        reason += "; the model has no more positions"
    return reason


def _choose_batches(chooser: _Chooser, facts: Facts, lengths: RowLengths, lora: LoraConfig) -> int:
    """Chooses epochs, batch, types and memory; returns the run's estimated number of steps."""
    n_examples = facts.n_examples
    epochs = next(epochs for most, epochs in _EPOCHS if n_examples <= most)
    n_steps = chooser.given("train.steps") or 0
    # Given steps are the length of the run; what is chosen may not contradict them. The batch
    # is that of a run of the usual length, so that a short trial takes the steps of a real run.
    if not n_steps or chooser.given("train.epochs"):
        epochs = chooser.choose("train.epochs", epochs, f"about {n_examples:,} examples")

    dtype = "float32" if facts.platform == "cpu" else "bfloat16"
    dtype = chooser.choose("model.dtype", dtype, f"matrix products of a {facts.platform}")

    wanted = _clamp(_power_of_two(n_examples * epochs / STEPS), *_BATCH_BOUNDS)
    per_row = _examples_per_row(facts, lengths)
    n_devices = facts.n_devices
    rows = max(1, round(wanted / per_row / n_devices)) * n_devices
    reason = f"rows of about {per_row:.1f} examples: {rows * per_row:.0f} examples a step"
    rows = chooser.choose("train.batch_size", rows, reason)

    state = _state_bytes(facts, lora)
    is_sharded = n_devices > 1 and state > _USABLE_MEMORY * facts.device_bytes / 2
    if is_sharded:
        chooser.choose("mesh.data", 1, "see mesh.fsdp")
        chooser.choose("mesh.fsdp", -1, f"the state takes {_gib(state)}: it is sharded")
        state = math.ceil(state / n_devices)
    room = _USABLE_MEMORY * facts.device_bytes - state
    if lora.quantize != "none":
        _choose_answers(chooser, facts)
    _choose_memory(chooser, facts, lengths, dtype, max(1, rows // n_devices), room)
    return n_steps or max(1, math.ceil(n_examples * epochs / (rows * per_row)))


def _state_bytes(facts: Facts, lora: LoraConfig) -> int:
    """Bytes of parameters, gradients and moments over all devices, roughly."""
    if not lora.rank:
        return (_BYTES_PER_PARAM + _BYTES_PER_TRAINED_PARAM) * facts.n_params
    tables = 1 if facts.model.tied_embedding else 2
    n_vocabulary = tables * facts.model.vocab_size * facts.model.d_model
    n_projected = facts.n_params - n_vocabulary
    return int(
        _BYTES_PER_PARAM * n_vocabulary + _BYTES_PER_FROZEN_PARAM[lora.quantize] * n_projected
    )


def _choose_answers(chooser: _Chooser, facts: Facts) -> None:
    """Chooses no previews in a run whose weights fit only while they are quantized."""
    whole = _BYTES_PER_ANSWERING_PARAM * facts.n_params
    if whole <= _USABLE_MEMORY * facts.device_bytes * facts.n_devices:
        return
    reason = f"answers need all weights dequantized, {_gib(whole)}"
    chooser.choose("train.preview_prompts", 0, reason)


def _examples_per_row(facts: Facts, lengths: RowLengths) -> float:
    """How many examples of mean length share a row."""
    fits = [_FILL * lengths.decoder / max(float(facts.decoder_lengths.mean()), 1.0)]
    if lengths.encoder:
        fits.append(_FILL * lengths.encoder / max(float(facts.encoder_lengths.mean()), 1.0))
    return max(1.0, min(fits))


def _choose_memory(
    chooser: _Chooser, facts: Facts, lengths: RowLengths, dtype: str, rows: int, room: float
) -> None:
    """Chooses what the backward pass computes again, and in how many slices a batch is computed.

    `rows` are those of a batch on one device, and `room` is the number of its bytes that the state
    leaves for activations.
    """
    # On a CPU it is faster to compute elementwise values again than to store and load them.
    is_cpu = facts.platform == "cpu"
    policies = ("minimal", "dots", "full") if is_cpu else ("none", "dots", "full")
    row_bytes = {name: _row_activations(facts, lengths, dtype, name) for name in policies}
    remat = next((name for name in policies if row_bytes[name] <= room), policies[-1])
    reason = f"a row's activations take about {_gib(row_bytes[remat])}"
    if is_cpu and remat == "minimal":
        reason = "computing elementwise values again is faster than keeping them on a CPU"
    remat = chooser.choose("model.remat", remat, reason)
    each = row_bytes.get(remat) or _row_activations(facts, lengths, dtype, remat)
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    slices = next((n for n in divisors if each * (rows // n) <= room), rows)
    if slices > 1:
        reason = f"{rows // slices} rows at a time fit into {_gib(max(room, 0))} of a device"
        chooser.choose("train.gradient_accumulation_steps", slices, reason)


def _row_activations(facts: Facts, lengths: RowLengths, dtype: str, remat: str) -> float:
    """Bytes that the backward pass keeps for a row, roughly, by the remat policy."""
    model = facts.model
    n_bytes = 4 if dtype == "float32" else 2
    n_heads = model.n_heads
    widths = model.d_model + n_heads * model.head_dim
    layer_input = 0
    if isinstance(model, DecoderConfig):
        n_layers = model.n_layers
        widths += n_heads * (model.head_dim_of(local=False) - model.head_dim)
        layer_input = model.layer_input_dim
        gates = 3 * model.d_ff
    else:
        n_layers = model.n_encoder_layers + model.n_decoder_layers
        gates = 2 * max(model.d_ff, model.encoder_d_ff)
        widths += max(model.encoder_width - model.d_model, 0)
    projected = 3 * widths + gates
    by_policy = {
        "none": 6 * widths + gates,
        "minimal": projected + widths - model.d_model,  # What attention returns as well.
        "dots": projected,
        "full": model.d_model,
    }
    per_token = n_bytes * (by_policy.get(remat, by_policy["dots"]) + layer_input)
    if remat == "none" and facts.platform == "cpu":
        per_token += 4 * n_heads * max(lengths)  # The scores of an attention without a kernel.
    return n_layers * per_token * float(lengths.total)


def _choose_optimizer(chooser: _Chooser, facts: Facts, lora_rank: int) -> None:
    is_t5 = not isinstance(facts.model, DecoderConfig) and facts.model.block == "t5"
    if is_t5 and not lora_rank:
        why = "as T5 is finetuned"
        chooser.choose("optimizer.name", "adafactor", why)
        chooser.choose("optimizer.learning_rate", _ADAFACTOR_RATE, why)
        chooser.choose("optimizer.schedule", "constant", why)
        return
    family = facts.family.rstrip("_0123456789")
    power = _WIDTH_POWERS.get(family, _DEFAULT_WIDTH_POWER)
    width = facts.model.d_model
    rate = (
        _ADAMW_RATE
        * (_LORA_FACTOR if lora_rank else 1.0)
        * (_WIDTH / max(width, _LEAST_WIDTH)) ** power
    )
    rate = float(f"{rate:.2g}")
    kind = "LoRA" if lora_rank else "all parameters"
    chooser.choose("optimizer.learning_rate", rate, f"for {kind} of a model of width {width:,}")
    chooser.choose_if_read("optimizer.warmup_ratio", 0.03, "the usual share of a finetuning run")
    schedule = chooser.given("optimizer.schedule") or "cosine"
    chooser.choose_if_read("optimizer.final_ratio", 0.1, f"{schedule} down to a tenth")


def _choose_optimizer_of_pairs(chooser: _Chooser, lora_rank: int) -> None:
    rate = PREFERENCE_LORA if lora_rank else PREFERENCE
    chooser.choose("optimizer.learning_rate", rate, "the usual one for pairs")
    chooser.choose_if_read("optimizer.warmup_ratio", 0.1, "the usual share of a run on pairs")


def _choose_rhythm(chooser: _Chooser, n_steps: int, holds_out: bool) -> None:
    """Chooses how often the run logs, evaluates and saves."""
    about = f"of about {n_steps:,} steps"
    chooser.choose("train.log_every", _clamp(n_steps // 50, 1, 10), about)

    def times(every: int) -> str:
        # The last step counts, whatever the interval.
        return f"about {counted(math.ceil(n_steps / every), 'time')} a run"

    every = max(1, n_steps // EVALS_PER_RUN)
    which = "held-out" if holds_out else "eval"
    chooser.choose("train.eval_every", every, f"the {which} loss, {times(every)}")
    saves = max(1, n_steps // SAVES_PER_RUN)
    saves = max(every, saves // every * every)
    chooser.choose("train.save_every", saves, f"a checkpoint {times(saves)}")
    if holds_out:
        chooser.choose("train.keep_best", 1, "the checkpoint with the lowest held-out loss")


def _power_of_two(number: float) -> int:
    return 2 ** max(0, round(math.log2(max(number, 1.0))))


def _clamp(number: int, low: int, high: int) -> int:
    return max(low, min(high, number))


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
