"""Policies: what of a conversation is trained, and which thoughts are in it.

A run's are in `config.format`. A row may have its own, in fields of the same names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Policy:
    """The policies that a conversation is encoded by; see the same fields of `FormatConfig`."""

    train_on: str = "all"
    train_roles: tuple[str, ...] = ("assistant",)
    train_thinking: bool = True
    train_tool_calls: bool = True
    earlier_thinking: str = "template"
    empty_thinking: str = "template"

    @classmethod
    def of(cls, fmt: FormatConfig, architecture: str) -> Self:
        """Return what a config says.

        Raises:
            UserError: The architecture cannot train these roles.
        """
        policy = cls(**{name: getattr(fmt, name) for name in NAMES})
        policy.check_roles("format.train_roles", architecture)
        return policy

    @property
    def concerns_parts(self) -> bool:
        """Whether parts of answers are masked, or have to be there."""
        has_masks = not (self.train_thinking and self.train_tool_calls)
        return has_masks or self.empty_thinking != "template"

    def for_row(self, row: Mapping[str, Any], where: str, architecture: str) -> "Policy":
        """Return the policies of a row.

        Args:
            row: What the row says, by the names of the fields.
            where: Its place, for the error.
            architecture: "decoder" or "encoder_decoder".

        Raises:
            UserError: The architecture cannot train these roles.
        """
        if not row:
            return self
        policy = dataclasses.replace(self, **row)
        policy.check_roles(f"{where}: field 'train_roles'", architecture)
        return policy

    def check_roles(self, place: str, architecture: str) -> None:
        """Check that there is a role to train, and that the architecture can.

        Raises:
            UserError: It is not so; names the place.
        """
        if not self.train_roles:
            raise UserError(f"{place}: expected at least one role, such as 'assistant'")
        if architecture != "decoder" and self.train_roles != ("assistant",):
            roles = ", ".join(self.train_roles)
            raise UserError(
                f"{place}: {roles}: an encoder-decoder trains an assistant's turns; expected"
                " 'assistant' alone"
            )


NAMES = tuple(field.name for field in dataclasses.fields(Policy))
