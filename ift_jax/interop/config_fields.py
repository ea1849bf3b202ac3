"""The fields of a Hugging Face `config.json`, typed and accounted for."""

from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.typed_fields import FLAG, NULL, REQUIRED, Kind, TypedFields, one_of, shown, whole

# More than any model has. Larger numbers are mistakes, and nothing may be built from them: shapes
# of 10^12 overflow, and a list for each of 10^12 layers does not fit into memory.
MOST_LAYERS = 10_000
MOST_HEADS = 1 << 16
MOST_WIDTH = 1 << 22
SIZE = whole(1, MOST_WIDTH)


class ConfigFields(TypedFields):
    """The fields of one `config.json`; remembers which of them were read.

    An absent field has the default that `transformers` gives it in this family, else it is
    required. Null is not absent: `sliding_window: null` means that there is no window, and an
    absent one means a window of 4,096 in Mistral and Gemma. `finish` refuses every field that
    nothing read, so that a variant of a family never runs as if it were the family itself.

    Attributes:
        model_type: The family, as the file names it.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        where: str,
        *,
        model_type: str,
        defaults: Mapping[str, Any],
        nullable: frozenset[str],
        ignored: Mapping[str, Kind],
    ):
        super().__init__(raw, where)
        self.model_type = model_type
        self._defaults = defaults
        self._nullable = nullable
        self._ignored = ignored
        self._read: set[str] = set()

    def get(self, name: str, kind: Kind, default: Any = REQUIRED) -> Any:
        """Return the value of a field.

        Args:
            name: The field.
            kind: What its value must be, unless it is null and may be null in this family.
            default: The value of an absent field for which the family has no default.

        Raises:
            UserError: The field is absent and has no default, or its value is of another kind.
        """
        self._read.add(name)
        if name in self._nullable:
            kind = kind | NULL
        return super().get(name, kind, self._defaults.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a field that is true or false; null, where it is allowed, is false."""
        return bool(self.get(name, FLAG, default))

    def expect(self, name: str, value: Any) -> None:
        """Refuse a field that is there and has another value than this one."""
        kind = one_of((value,))
        if isinstance(value, float):  # JSON may write 1 for 1.0.
            kind = kind | one_of((int(value),))
        self.get(name, kind, value)

    def nested(self, name: str, fields: Any) -> "ConfigFields":
        """Wrap the fields inside field `name`; nothing in there has a default.

        Raises:
            UserError: What is in there is no object.
        """
        if not isinstance(fields, dict):
            raise self.refusal(name, fields, "an object")
        return ConfigFields(
            fields,
            f"{self.where}: {name}",
            model_type=self.model_type,
            defaults={},
            nullable=frozenset(),
            ignored={},
        )

    def finish(self) -> None:
        """Check what is ignored, and refuse the first field that nothing read or ignores.

        An unknown field that is null or false switches nothing on, so it is accepted.
        """
        for name, value in self.raw.items():
            if name in self._read:
                continue
            if name in self._ignored:
                self.check(name, value, self._ignored[name] | NULL)
            elif value is not None and value is not False:
                raise UserError(
                    f"{self.where}: {shown_name(name)} = {shown(value)} is not supported; "
                    f"{self.model_type} models are read without that field"
                )


def shown_name(name: str) -> str:
    """Return the name of a field as messages show it: not all of a very long one."""
    return name if name.isprintable() and len(name) <= 60 else shown(name)
