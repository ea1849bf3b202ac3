"""The policies of a row: what of it is trained, in fields named as those of `config.format`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ift_jax.config.fields import of_type, rules_of
from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError
from ift_jax.text import policies
from ift_jax.text.rows import values
from ift_jax.text.rows.messages import OUR_ROLES

_ROLES = "train_roles"
_ROLES_ELSEWHERE = "roles_to_train"  # Axolotl's word.
FIELDS = (*policies.NAMES, _ROLES_ELSEWHERE)
_FORMAT = {field.name: field for field in dataclasses.fields(FormatConfig)}


def parse_policy(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the policies that a row states, by the names of the fields of `Policy`.

    Args:
        given: Those of `FIELDS` that the row has. A value that is no text may be its JSON.
        where: The row's place, for errors.

    Raises:
        UserError: A value is not one of those that the config's field takes; names the field.
    """
    if _ROLES in given and _ROLES_ELSEWHERE in given:
        raise UserError(f"{where}: expected one of {_ROLES!r} and {_ROLES_ELSEWHERE!r}, found both")
    policy = {}
    for written, value in given.items():
        name = _ROLES if written == _ROLES_ELSEWHERE else written
        place = f"{where}: field {written!r}"
        if name == _ROLES:
            value = [OUR_ROLES.get(role, role) for role in _list_of_roles(value, place)]
        elif _FORMAT[name].type is bool and isinstance(value, str | bytes):
            value = values.parsed(value, place, "true or false")
        elif isinstance(value, bytes):
            value = values.text(value, place)
        value = of_type(place, _FORMAT[name], value)
        rules_of(_FORMAT[name]).check(place, value)
        policy[name] = value
    return policy


def policy_texts(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return policies as values of which `parse_policy` takes the JSON; texts are as they are."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in policy.items()}


def _list_of_roles(value: Any, place: str) -> list[Any]:
    if isinstance(value, str | bytes) and not values.text(value, place).lstrip().startswith("["):
        return [values.text(value, place)]
    roles = values.list_of(value, place, "a list of roles")
    return [values.text(role, place) for role in roles]
