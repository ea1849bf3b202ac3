"""The fields of a Hugging Face `config.json`, typed and accounted for."""

from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError

# Fields that change no logits: they belong to training, to generation or to other tasks' heads, or
# they are notes of the library that wrote the file.
IGNORED_FIELDS = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "_sliding_window_pattern",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "decoder_start_token_id",
        "dense_act_fn",
        "dropout_rate",
        "dtype",
        "eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_factor",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "is_gated_act",
        "is_llama_config",
        "label2id",
        "max_window_layers",
        "model_type",
        "n_positions",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "use_cache",
    }
)

_REQUIRED: Any = object()


class ConfigFields:
    """The fields of one `config.json`; remembers which of them were read.

    A field that is absent or null has the default of the family, else the one that the caller
    computed from other fields, else it is required. `finish` refuses every field that nothing
    read, so that a variant of a family never runs as if it were the family itself.

    Attributes:
        raw: The fields as the file has them; reading here does not count as reading.
        where: What messages call the file.
        model_type: The family, as the file names it.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        where: str,
        *,
        model_type: str,
        defaults: Mapping[str, Any],
        ignored: frozenset[str],
    ):
        self.raw = raw
        self.where = where
        self.model_type = model_type
        self._defaults = defaults
        self._ignored = ignored
        self._read: set[str] = set()

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return the value of a field.

        Args:
            name: The field.
            default: The value of an absent field for which the family has no default.

        Raises:
            UserError: The field is absent and has no default.
        """
        self._read.add(name)
        value = self.raw.get(name)
        if value is not None:
            return value
        default = self._defaults.get(name, default)
        if default is _REQUIRED:
            raise UserError(f"{self.where}: no field {name!r}; expected one in this family")
        return default

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a field as `get` does; raise a UserError if it is not a number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refusal(name, value, "a number")
        return value

    def numbers(self, names: Mapping[str, str], **computed: Any) -> dict[str, Any]:
        """Return several numbers.

        Args:
            names: Our name -> theirs.
            computed: Their name -> the value of an absent field without a default of the family.
        """
        return {
            ours: self.number(theirs, computed.get(theirs, _REQUIRED))
            for ours, theirs in names.items()
        }

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a field as `get` does; raise a UserError if it is not a boolean."""
        return bool(self.one_of(name, True, False, default=default))

    def one_of(self, name: str, *allowed: Any, default: Any = _REQUIRED) -> Any:
        """Return a field as `get` does; raise a UserError if its value is not allowed."""
        value = self.get(name, default)
        if value not in allowed:
            raise self.refusal(name, value, " or ".join(map(repr, allowed)))
        return value

    def expect(self, name: str, value: Any) -> None:
        """Refuse a field that is there and has another value than this one."""
        self.one_of(name, value, default=value)

    def nested(self, name: str, fields: Mapping[str, Any]) -> "ConfigFields":
        """Wrap the fields inside field `name`; nothing in there has a default."""
        return ConfigFields(
            fields,
            f"{self.where}: {name}",
            model_type=self.model_type,
            defaults={},
            ignored=self._ignored,
        )

    def refusal(self, name: str, value: Any, expected: str) -> UserError:
        """Return the error for a value that is not supported; the caller raises it."""
        return UserError(f"{self.where}: {name} is {value!r}; expected {expected}")

    def finish(self) -> None:
        """Refuse the first field that nothing read, unless it is ignored, null or false."""
        for name, value in self.raw.items():
            if name in self._read or name in self._ignored or value in (None, False):
                continue
            raise UserError(
                f"{self.where}: {name} = {value!r} is not supported; {self.model_type} models "
                "are read without that field"
            )
