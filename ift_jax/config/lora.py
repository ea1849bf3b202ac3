"""Config section `lora`: the adapters, and what each projection's adapter is."""

import dataclasses
import re

from ift_jax.config.fields import field
from ift_jax.errors import UserError

_LARGEST_RANK = 2**16


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (ift_jax/models/lora.py). With them nothing else is trained."""

    rank: int = field(0, "Rank of the adapters; 0: no LoRA.", minimum=0, maximum=_LARGEST_RANK)
    alpha: float = field(16.0, "The adapters' product is scaled by alpha / rank.", above=0)
    rslora: bool = field(False, "Whether the scale is alpha / sqrt(rank) instead.")
    targets: str = field(
        "attention|cross|mlp",
        "Projections that get an adapter: those with a match in their path, such as "
        '"layers.attention.query", "decoder.layers.cross.key" or "layers.mlp.down".',
        regex=True,
    )
    rank_pattern: tuple[str, ...] = field(
        (),
        "Other ranks, each as PATTERN=RANK: projections with a match in their path get that rank. "
        "The first pattern that matches counts.",
    )
    alpha_pattern: tuple[str, ...] = field(
        (), "Other alphas, each as PATTERN=ALPHA, as in rank_pattern."
    )
    dropout: float = field(
        0.0,
        "Dropout rate on the input of each adapter, not on that of the frozen weight beside it.",
        minimum=0,
        below=1,
    )
    dora: bool = field(
        False,
        "Whether the size of each output's weights is trained apart from their direction (DoRA, "
        "arXiv:2402.09353).",
    )

    quantize: str = field(
        "none",
        "How the frozen projections are held: in the compute dtype, or as integers in blocks of 64 "
        '(QLoRA, arXiv:2305.14314): "nf4" takes 4.5 bits a weight, "int8" 8.5. Embedding, head and '
        "norms are not quantized.",
        choices=("none", "int8", "nf4"),
    )

    def rank_of(self, projection: str) -> int:
        """The rank of the adapter of a projection, by its path."""
        number = _first_match("rank_pattern", self.rank_pattern, projection)
        return self.rank if number is None else int(number)

    def alpha_of(self, projection: str) -> float:
        """The alpha of the adapter of a projection, by its path."""
        number = _first_match("alpha_pattern", self.alpha_pattern, projection)
        return self.alpha if number is None else number

    def scale_of(self, projection: str) -> float:
        """The factor of the product A B of the adapter of a projection, by its path."""
        rank = self.rank_of(projection)
        return self.alpha_of(projection) / (rank**0.5 if self.rslora else rank)


def check_lora(lora: LoraConfig) -> None:
    """Check what the bounds of the single fields leave open.

    Raises:
        UserError: A pattern cannot be read, or a field means nothing without adapters.
    """
    for pattern, rank in _patterns("rank_pattern", lora.rank_pattern):
        if not (rank.is_integer() and 1 <= rank <= _LARGEST_RANK):
            raise UserError(
                f"config.lora.rank_pattern: expected a whole number from 1 to {_LARGEST_RANK} "
                f"after {pattern!r}; got {rank:g}"
            )
    for pattern, alpha in _patterns("alpha_pattern", lora.alpha_pattern):
        if not 0 < alpha < float("inf"):
            raise UserError(
                f"config.lora.alpha_pattern: expected a positive number after {pattern!r}; "
                f"got {alpha:g}"
            )
    for field_ in dataclasses.fields(lora):
        name, value = field_.name, getattr(lora, field_.name)
        if name not in ("rank", "quantize") and value != field_.default and not lora.rank:
            raise UserError(
                f"config.lora.{name}: {value!r}, but lora.rank is 0, so there are no adapters; set "
                "lora.rank, such as 16"
            )
    if lora.quantize != "none" and not lora.rank:
        raise UserError(
            f"config.lora.quantize: {lora.quantize!r}, but lora.rank is 0, and quantized weights "
            "cannot be trained themselves; set lora.rank, such as 16, or quantize to 'none'"
        )


def _first_match(field_name: str, texts: tuple[str, ...], projection: str) -> float | None:
    """The number of the first pattern that is found in a path; None: of no pattern."""
    matching = (
        number for pattern, number in _patterns(field_name, texts) if re.search(pattern, projection)
    )
    return next(matching, None)


def _patterns(field_name: str, texts: tuple[str, ...]) -> list[tuple[str, float]]:
    """Patterns and their numbers, from texts such as "mlp=32"."""
    return [_pattern(f"config.lora.{field_name}", text) for text in texts]


def _pattern(where: str, text: str) -> tuple[str, float]:
    pattern, equals, number = text.rpartition("=")
    try:
        re.compile(pattern)
        value = float(number)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise UserError(
            f"{where}: expected a regular expression, = and a number, such as 'mlp=32'; "
            f"got {text!r} ({error})"
        ) from error
    if not (pattern and equals):
        raise UserError(f"{where}: expected a pattern before the number, 'mlp=32'; got {text!r}")
    return pattern, value
