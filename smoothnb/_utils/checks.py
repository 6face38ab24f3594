"""Checks of arguments: each returns the value, converted if necessary, or raises an error that names the argument."""

import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Rule = Callable[[str, object, object], object]
"""From an argument's name, its value and the pipeline (or None) to the checked value."""

LONGEST = (4095, 255)
"""Maximum length of a path, and of each of its parts, in bytes."""
SEEDS = (-(2**63), 2**64 - 1)
"""Range of the seeds of torch's generators."""


def shown(value: object) -> str:
    """A value, abbreviated for a message."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def as_whole(value: object) -> int | None:
    """An integer of Python, numpy or torch as int; None for anything else, including bool."""
    if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) in (bool, torch.bool):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def as_number(value: object) -> float | None:
    """A finite number as float or int; None for anything else."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 and not getattr(value, "is_meta", False):
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        return None
    value = float(value) if not isinstance(value, int) else value
    return value if math.isfinite(value) else None


def whole(least: int | None = None) -> Rule:
    """An integer, at least `least`."""

    def rule(name: str, value: object, _: object = None) -> int:
        found = as_whole(value)
        if found is None:
            raise TypeError(f"expected {name} as a whole number, got {shown(value)}")
        if least is not None and found < least:
            raise ValueError(f"expected {name} of at least {least}, got {found}")
        return found

    return rule


def number(least: float = -math.inf, most: float = math.inf, note: str = "") -> Rule:
    """A finite number in [least, most]."""
    within = f"in [{least:g}, {most:g}]" if most < math.inf else "as a finite number"
    within = f"of at least {least:g}" if most == math.inf and least > -math.inf else within

    def rule(name: str, value: object, _: object = None) -> float:
        found = as_number(value)
        if found is None and not isinstance(value, numbers.Real):
            raise TypeError(f"expected {name} as a number{note}, got {shown(value)}")
        if found is None or not least <= found <= most:
            raise ValueError(f"expected {name} {within}{note}, got {value}")
        return found

    return rule


def within(least: int, most: int) -> Rule:
    """An integer in [least, most]."""

    def rule(name: str, value: object, _: object = None) -> int:
        found = whole()(name, value)
        if not least <= found <= most:
            raise ValueError(f"expected {name} from {least} to {most}, got {found}")
        return found

    return rule


def pair(name: str, value: object, _: object = None) -> tuple[float, float]:
    """Two finite numbers."""
    found = [as_number(one) for one in several(name, value)]
    if len(found) != 2 or None in found:
        raise ValueError(f"expected {name} as two numbers, got {shown(value)}")
    return tuple(found)


def reals(name: str, value: object, _: object = None) -> list[float]:
    """A sequence of finite numbers."""
    found = [as_number(one) for one in several(name, value)]
    if None in found:
        raise ValueError(f"expected {name} that are finite numbers, got {shown(value)}")
    return found


def factors(name: str, value: object, _: object = None) -> dict[str, float]:
    """A mapping from texts to numbers."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"expected {name} as numbers by text, got {shown(value)}")
    if wrong := [one for one in value.values() if isinstance(one, bool) or not isinstance(one, numbers.Real)]:
        raise TypeError(f"expected {name} as numbers by text, got {shown(wrong[0])}")
    return dict(value)


def header(name: str, value: object, _: object = None) -> dict[str, str]:
    """A mapping from texts to texts, like the metadata of a file."""
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for item in value.items() for one in item):
        raise TypeError(f"expected {name} as texts by text, got {shown(value)}")
    return dict(value)


def flag(name: str, value: object, _: object = None) -> bool:
    """True or False."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"expected {name} as True or False, got {shown(value)}")


def text(name: str, value: object, _: object = None) -> str:
    """One text."""
    if not isinstance(value, str):
        raise TypeError(f"expected {name} as one text, got {shown(value)}")
    return value


def texts(name: str, value: object, _: object = None) -> str | list[str]:
    """A text, or several."""
    if isinstance(value, str):
        return value
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, bytes | Tensor) else [value]
    if not all(isinstance(one, str) for one in found):
        wrong = next(one for one in found if not isinstance(one, str))
        raise TypeError(f"expected {name} as a text or a sequence of texts, got {shown(wrong)}")
    return [str(one) for one in found]


def floating(name: str, value: object, _: object = None) -> Tensor:
    """A dense floating-point tensor, not on the meta device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"expected {name} as a tensor, got {shown(value)}")
    if value.is_meta or value.layout != torch.strided:
        raise ValueError(f"expected {name} with numbers in it, got a tensor on {value.device}, {value.layout}")
    if not value.is_floating_point():
        raise ValueError(f"expected {name} in floating point, got {value.dtype}")
    return value


def finite(name: str, value: object, _: object = None) -> Tensor:
    """A tensor of finite numbers."""
    if not torch.isfinite(floating(name, value)).all():
        raise ValueError(f"expected finite {name}, got NaN or infinity among the numbers")
    return value


def seed(name: str, value: object, _: object = None) -> int:
    """One seed."""
    found = as_whole(value)
    if found is None:
        raise TypeError(f"expected {name} as a whole number, got {shown(value)}")
    if not SEEDS[0] <= found <= SEEDS[1]:
        raise ValueError(f"expected {name} from -2^63 to 2^64 - 1, got {found}")
    return found


def seeds(name: str, value: object, _: object = None) -> int | list[int]:
    """One seed, or several."""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes) and getattr(value, "ndim", 1)
    if not several:
        return seed(name, value)
    if not (found := [seed(name, one) for one in value]):
        raise ValueError("expected at least one seed, got none")
    return found


def path(name: str, value: object, _: object = None) -> str | os.PathLike:
    """A path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"expected {name} as a path, got {shown(value)}")
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded or len(encoded) > LONGEST[0] or max(map(len, encoded.split(b"/"))) > LONGEST[1]:
        raise ValueError(f"expected {name} as a path that a file system can hold, got {shown(value)}")
    return value


def function(name: str, value: object, _: object = None) -> Callable:
    """A callable."""
    if not callable(value):
        raise TypeError(f"expected {name} as a function, got {shown(value)}")
    return value


def several(name: str, value: object, _: object = None) -> Iterable:
    """A sequence other than a text; iterators become lists."""
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"expected {name} as a sequence, got {shown(value)}")
    return value if isinstance(value, Sequence | Tensor | np.ndarray) else list(value)


def iterable(name: str, value: object, _: object = None) -> Iterable:
    """An iterable."""
    if not isinstance(value, Iterable):
        raise TypeError(f"expected {name} as an iterator, got {shown(value)}")
    return value


def of(kind: type, what: str) -> Rule:
    """An instance of a class; `what` describes it in the error."""

    def rule(name: str, value: object, _: object = None) -> object:
        if not isinstance(value, kind):
            raise TypeError(f"expected {name} as {what}, got {shown(value)}")
        return value

    return rule
