"""Config section `preference`: direct preference optimization, and what it excludes."""

import dataclasses
from typing import TYPE_CHECKING

from ift_jax.config.fields import field
from ift_jax.errors import UserError

if TYPE_CHECKING:
    from ift_jax.config.schema import Config

SCHEMA = "preference"  # The name in `data.schema` of rows with chosen and rejected answers.
_BETA = {"sigmoid_norm": 5.0}  # Tülu 3's (arXiv:2411.15124).
_USUAL_BETA = 0.1  # The default of TRL and of the DPO paper.
_SMOOTHED = ("sigmoid", "sigmoid_norm")


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """Direct preference optimization: training on pairs of a chosen and a rejected answer."""

    loss: str = field(
        "none",
        'The loss of a pair, by its names in TRL. "none": rows are answers to imitate. "sigmoid" '
        'is DPO (arXiv:2305.18290); "sigmoid_norm" is the same with the mean of each answer\'s '
        'log-probabilities in the place of their sum, as in Tülu 3; "ipo" is the squared distance '
        "of the difference of the means from 1 / (2 beta) (arXiv:2310.12036), and "
        '"apo_zero" that of arXiv:2408.06266. The reference model is the one that the run begins '
        "with.",
        choices=("none", "sigmoid", "sigmoid_norm", "ipo", "apo_zero"),
    )
    beta: float = field(
        0.0,
        "How strongly the reference model holds the trained one back. 0: 0.1, and 5 for "
        "sigmoid_norm.",
        minimum=0,
    )
    label_smoothing: float = field(
        0.0,
        "The probability that a label is wrong, for sigmoid and sigmoid_norm (conservative DPO).",
        minimum=0,
        below=0.5,
    )

    @property
    def trains_pairs(self) -> bool:
        """Whether the run trains on pairs."""
        return self.loss != "none"

    @property
    def takes_means(self) -> bool:
        """Whether an answer's log-probability is the mean over its tokens, not the sum."""
        return self.loss in ("sigmoid_norm", "ipo")


def with_preference(config: "Config") -> "Config":
    """Return the config of a run on pairs with its beta and its shape of rows; others as they are.

    Raises:
        UserError: A field is meant for runs of another kind.
    """
    preference = config.preference
    if not preference.trains_pairs:
        for name in ("beta", "label_smoothing"):
            if getattr(preference, name):
                raise UserError(
                    f"config.preference.{name}: {getattr(preference, name):g} needs a "
                    "preference.loss other than 'none'"
                )
        return config
    _check(config)
    beta = preference.beta or _BETA.get(preference.loss, _USUAL_BETA)
    return dataclasses.replace(
        config,
        preference=dataclasses.replace(preference, beta=beta),
        data=dataclasses.replace(config.data, schema=SCHEMA),
    )


def _check(config: "Config") -> None:
    """Raise a UserError for what a run on pairs cannot do, or would not do as it is told."""
    preference = config.preference
    what = f"with preference.loss={preference.loss!r}"
    if config.model.architecture != "decoder":
        raise UserError(
            f"config.model.architecture: {config.model.architecture!r} does not train on pairs; "
            f"expected 'decoder' {what}"
        )
    if preference.label_smoothing and preference.loss not in _SMOOTHED:
        raise UserError(
            f"config.preference.label_smoothing: expected 0 {what}; it is for "
            f"{' and '.join(_SMOOTHED)}"
        )
    if config.format.bidirectional_prefix:
        raise UserError(f"config.format.bidirectional_prefix: expected False {what}")
    if config.data.schema not in ("auto", SCHEMA):
        raise UserError(
            f"config.data.schema: expected 'auto' or {SCHEMA!r} {what}; got {config.data.schema!r}"
        )
    if config.loss.normalization != "tokens":
        raise UserError(
            f"config.loss.normalization: {config.loss.normalization!r} is for the loss of tokens; "
            f"{what} it is the mean over pairs, and 'tokens', the default, is expected"
        )
    for name in ("z_loss", "label_smoothing", "router_balance", "router_z_loss"):
        if getattr(config.loss, name):
            raise UserError(f"config.loss.{name}: expected 0 {what}; it is for the loss of tokens")
