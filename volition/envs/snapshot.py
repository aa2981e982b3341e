"""The whole state of an object written in Python and NumPy, as tensors, numbers and strings; and back into its twin."""

import enum
import json
from collections import deque
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from volition.errors import VolitionError

HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE, which no class of the interpreter's own has
BUILT = (
    type | FunctionType | MethodType | BuiltinFunctionType | ModuleType | enum.Enum | np.dtype | spaces.Space | EnvSpec
)
STATE, KIND = "state", "kind"


def snapshot(thing: Any) -> dict[str, Any]:
    """All that `thing` holds. What its constructor alone decides (spaces, functions, enums) is not saved."""
    return _Saver().save(thing, type(thing).__name__)


def restore(thing: Any, state: dict[str, Any]) -> None:
    """Make `thing`, built like the one that was saved, equal to it."""
    if state.get(KIND) != "object" or state["class"] != _name(type(thing)):
        raise VolitionError(f"the saved state is of {state.get('class')}, not of {_name(type(thing))}")
    _Loader().load(state, thing, type(thing).__name__)


class _Saver:
    def __init__(self) -> None:
        self.places: dict[int, int] = {}  # id of what has been saved: a thing in two places stays one thing
        self.kept: list[Any] = []
        self.arrays: list[tuple[str, np.ndarray]] = []

    def save(self, x: Any, where: str) -> dict[str, Any]:
        if x is None or type(x) in (bool, int, float, str):
            return {KIND: "plain", STATE: x}
        if isinstance(x, np.generic):
            return {KIND: "scalar", STATE: _tensor(np.asarray(x), where)}
        if isinstance(x, BUILT) or type(x).__module__.partition(".")[0] == "pygame":  # pictures are no state
            return {KIND: "built"}
        if id(x) in self.places:
            return {KIND: "again", STATE: self.places[id(x)]}
        self.places[id(x)] = len(self.kept)
        self.kept.append(x)
        if type(x) is np.ndarray:
            self._alone(x, where)
            return {KIND: "array", STATE: _tensor(x, where)}
        if isinstance(x, np.random.Generator):
            return {KIND: "random", STATE: json.dumps(x.bit_generator.state, default=lambda a: a.tolist())}
        if type(x) in (list, tuple, deque):
            rows = [self.save(row, f"{where}[{i}]") for i, row in enumerate(x)]
            return {KIND: type(x).__name__, STATE: rows, "most": x.maxlen if isinstance(x, deque) else None}
        if type(x) is dict and all(type(key) in (str, int) for key in x):
            return {KIND: "dict", STATE: {key: self.save(value, f"{where}[{key!r}]") for key, value in x.items()}}
        if _is_python(type(x)):
            parts = {name: self.save(value, f"{where}.{name}") for name, value in vars(x).items()}
            return {KIND: "object", STATE: parts, "class": _name(type(x))}
        raise VolitionError(f"{where} is a {_name(type(x))}, which cannot be saved: give the environment a state_dict")

    def _alone(self, x: np.ndarray, where: str) -> None:
        for other, y in self.arrays:
            if np.may_share_memory(x, y):
                raise VolitionError(f"{where} and {other} share memory, which cannot be saved: let one be a copy")
        self.arrays.append((where, x))


class _Loader:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def load(self, state: dict[str, Any], now: Any, where: str) -> Any:
        """What was saved; `now` is what the new object has in its place."""
        kind: str = state[KIND]
        saved: Any = state.get(STATE)
        if kind == "plain":
            return saved
        if kind == "scalar":
            return _array(saved)[()]
        if kind == "built":
            return now
        if kind == "again":
            if self.kept[saved] is None:
                raise VolitionError(f"{where} contains itself, which cannot be put back")
            return self.kept[saved]
        place = len(self.kept)
        self.kept.append(None)
        self.kept[place] = out = self._load(state, saved, now, where, place)
        return out

    def _load(self, state: dict[str, Any], saved: Any, now: Any, where: str, place: int) -> Any:
        kind = state[KIND]
        if kind == "array":
            return _array(saved)
        if kind == "random":
            random = json.loads(saved)
            generator = np.random.Generator(getattr(np.random, random["bit_generator"])(0))
            generator.bit_generator.state = random
            return generator
        if kind in ("list", "tuple", "deque"):
            before = list(now) if isinstance(now, list | tuple | deque) else []
            before += [None] * (len(saved) - len(before))
            rows = [self.load(row, before[i], f"{where}[{i}]") for i, row in enumerate(saved)]
            make: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple}
            return make[kind](rows) if kind in make else deque(rows, state["most"])
        if kind == "dict":
            old = now if isinstance(now, dict) else {}
            return {key: self.load(value, old.get(key), f"{where}[{key!r}]") for key, value in saved.items()}
        if _name(type(now)) != state["class"]:
            raise VolitionError(f"{where} was saved as a {state['class']} and is now a {_name(type(now))}")
        self.kept[place] = now  # its own parts may point back to it
        parts = {name: self.load(value, vars(now).get(name), f"{where}.{name}") for name, value in saved.items()}
        vars(now).clear()
        vars(now).update(parts)
        return now


def _is_python(kind: type) -> bool:
    """Whether the class was written in Python without slots, so that vars() of an object is all that it holds."""
    own = all(c is object or (c.__flags__ & HEAP and not vars(c).get("__slots__")) for c in kind.__mro__)
    return own and kind.__new__ is object.__new__ and kind.__dictoffset__ != 0


def _tensor(x: np.ndarray, where: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(x))
    except TypeError:
        raise VolitionError(f"{where} is an array of {x.dtype}, which cannot be saved") from None


def _array(x: torch.Tensor) -> np.ndarray:
    return x.cpu().numpy().copy()


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
