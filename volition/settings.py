"""Settings between a frozen dataclass and the JSON of config.json, and where two of them differ."""

import dataclasses
import enum
import json
import types
import typing
from pathlib import Path
from typing import Any

from volition.errors import VolitionError

C = typing.TypeVar("C")


def plain_config(config: Any) -> dict[str, Any]:
    """A settings dataclass as the dict that JSON gives back."""

    def simple(value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return value.name
        return str(value)

    if config is None:
        return {}
    return json.loads(json.dumps(dataclasses.asdict(config), default=simple))


ABSENT = "(absent)"


def differences(before: Any, now: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields of two plain configs that differ: name → (before, now); nested names are joined by dots."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return {} if before == now else {where: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in [*before, *(n for n in now if n not in before)]:
        inner = f"{where}.{name}" if where else str(name)
        found |= differences(before.get(name, ABSENT), now.get(name, ABSENT), inner)
    return found


def make_config(kind: type[C], values: Any, where: str = "config") -> C:
    """The dataclass `kind` from what `plain_config` gave; VolitionError names an unfit field.

    A setting that is absent is one that came later: it has its default.
    """
    if not isinstance(values, dict):
        raise VolitionError(f"{where} holds {values!r} where settings of {kind.__qualname__} belong; restore the file")
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]  # pyrefly: ignore
    never = dataclasses.MISSING
    wanted = {field.name for field in fields if field.default is never and field.default_factory is never}
    if odd := sorted((set(values) - {field.name for field in fields}) | (wanted - set(values))):
        state = "unknown" if odd[0] in values else "missing"
        raise VolitionError(f"{where}: setting {odd[0]!r} is {state}; use the version of Volition that wrote it")
    return kind(**{name: _value(hints[name], values[name], f"{where}: {name}") for name in values})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for, or VolitionError."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(inner[0], value, where)
    if hint is Any or (origin is typing.Literal and value in inner) or (hint is type(None) and value is None):
        return value
    if origin in (typing.Union, types.UnionType):
        for choice in inner:
            try:
                return _value(choice, value, where)
            except VolitionError:
                continue
    elif origin in (tuple, list) and isinstance(value, list):
        kinds = inner if origin is tuple and inner[-1:] != (...,) else inner[:1] * len(value)
        if len(kinds) == len(value):
            return origin(_value(k, v, where) for k, v in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {k: _value(inner[1], v, where) for k, v in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return make_config(hint, value, where)  # pyrefly: ignore
    elif isinstance(hint, type) and issubclass(hint, enum.Enum) and value in hint.__members__:
        return hint[value]
    elif isinstance(hint, type) and issubclass(hint, Path) and isinstance(value, str):
        return hint(value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif hint in (bool, int, str) and type(value) is hint:
        return value
    elif hint in (tuple, list, dict) and isinstance(value, list | dict):
        return hint(value)
    raise VolitionError(f"{where} cannot be {value!r}; restore the file or train again")
