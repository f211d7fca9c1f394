"""What values mean in a rule: comparisons, arithmetic, filters, tests and methods over JSON values.

The trap: CSV cells are text, and `stars > 3` on the text "5" would be silently false, or true, in most languages. Here comparing text with a number is
an error that names the column; null is no number and no text, so every comparison with it is false and every sum with it null.
Nothing here can take long: there is no power, no repetition of texts, and no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

from batchllm.core import json

_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


class Mixed(Exception):  # noqa: N818 - it is data a moment later
    """Two values that can't be taken together, or a value of the wrong kind."""

    def __init__(self, why: str, *, text_with_number: bool = False) -> None:
        super().__init__(why)
        self.text_with_number = text_with_number


def kind(value: Any) -> str:
    """What people call a value."""
    return _KINDS.get(type(value), "a value")


def _mixed(left: Any, right: Any, word: str) -> Mixed:
    kinds = {kind(left), kind(right)}
    shown = next((value for value in (left, right) if isinstance(value, str)), None)
    holds = f" ({shown[:40]!r})" if shown is not None else ""
    return Mixed(f"{word} {kind(left)} and {kind(right)}{holds}", text_with_number=kinds == {"text", "a number"})


_SCALARS = frozenset({"text", "a number", "a boolean"})


def equal(left: Any, right: Any) -> bool:
    """`==`. Raises `Mixed` for text, numbers and booleans among each other."""
    if type(left) is type(right):
        return bool(left == right)
    if left is None or right is None:
        return False
    kinds = {kind(left), kind(right)}
    if len(kinds) == 2 and kinds <= _SCALARS:
        raise _mixed(left, right, "compares")
    return bool(left == right)


def unequal(left: Any, right: Any) -> bool:
    """`!=`."""
    return not equal(left, right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        both = kind(left)
        if both != kind(right) or both not in {"text", "a number"}:
            raise _mixed(left, right, "compares")
        return compare(left, right)

    return run


def contains(item: Any, whole: Any) -> bool:
    """`in`: a text in a text, a value in a list, a key in an object; false with null on either side."""
    if whole is None or (item is None and not isinstance(whole, list | tuple)):
        return False
    if isinstance(whole, str):
        if not isinstance(item, str):
            raise _mixed(item, whole, "looks in a text for another kind of value:")
        return item in whole
    if isinstance(whole, dict):
        return isinstance(item, str) and item in whole
    if isinstance(whole, list | tuple):
        # A text among numbers is the same slip as text == number.
        kinds = {kind(other) for other in whole} - {"null"}
        if len(kinds) == 1 and kinds | {kind(item)} == {"text", "a number"}:
            raise _mixed(item, whole[0], "compares")
        return any(kind(other) == kind(item) and other == item for other in whole)
    raise Mixed(f"looks for a value in {kind(whole)}")


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": unequal,
    "<": _ordered(lt),
    "<=": _ordered(le),
    ">": _ordered(gt),
    ">=": _ordered(ge),
    "in": contains,
    "not in": lambda item, whole: not contains(item, whole),
}


def _numbers(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(left: Any, right: Any) -> Any:
        if left is None or right is None:
            return None
        if kind(left) != "a number" or kind(right) != "a number":
            raise _mixed(left, right, "computes with")
        try:
            return compute(left, right)
        except ArithmeticError as error:
            raise Mixed(f"can't be computed ({error})") from None

    return run


def shown(value: Any) -> str:
    """A value as text, as templates show it: null as nothing, the rest as JSON."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    return "" if value is None else json.text(value)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": _numbers(lambda a, b: a + b),
    "-": _numbers(lambda a, b: a - b),
    "*": _numbers(lambda a, b: a * b),
    "/": _numbers(lambda a, b: a / b),
    "//": _numbers(lambda a, b: a // b),
    "%": _numbers(lambda a, b: a % b),
    "~": lambda a, b: shown(a) + shown(b),
}


def negative(value: Any) -> Any:
    """Unary minus."""
    return OPERATORS["-"](0, value)


def member(value: Any, key: Any) -> Any:
    """`value.key` and `value[key]`: null where there is no such thing."""
    if isinstance(value, dict):
        return value.get(key) if isinstance(key, str) else None
    if isinstance(value, list | str) and type(key) is int and -len(value) <= key < len(value):
        return value[key]
    return None


def has_member(value: Any, key: Any) -> bool:
    """Whether `member` finds something, a null included."""
    if isinstance(value, dict):
        return isinstance(key, str) and key in value
    return isinstance(value, list | str) and type(key) is int and -len(value) <= key < len(value)


def _of_text(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def run(value: Any, *args: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, str) or not all(isinstance(arg, str) for arg in args):
            raise Mixed(f"`{name}` is for text, not for {kind(value)}")
        return method(value, *args)

    return run


def _length(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str | list | dict | tuple):
        return len(value)
    raise Mixed(f"`length` is not for {kind(value)}")


def _number(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        # Jinja's `int` makes 0 of what is no number; unknown is not zero.
        if kind(value) not in {"a number", "text"}:
            return None
        try:
            number = convert(value)
        except (ValueError, OverflowError):
            return None
        return number if abs(number) < 1e300 else None

    return run


def _absolute(value: Any) -> Any:
    if value is None:
        return None
    if kind(value) != "a number":
        raise Mixed(f"`abs` is for numbers, not for {kind(value)}")
    return abs(value)


def _default(value: Any, other: Any = "", also_false: Any = False) -> Any:
    return other if value is None or (also_false and not value) else value


FILTERS: dict[str, tuple[Callable[..., Any], int]] = {
    "lower": (_of_text("lower", str.lower), 0),
    "upper": (_of_text("upper", str.upper), 0),
    "trim": (_of_text("trim", str.strip), 0),
    "length": (_length, 0),
    "count": (_length, 0),
    "int": (_number(lambda value: int(float(value)) if isinstance(value, str) and not value.strip().lstrip("+-").isdigit() else int(value)), 0),
    "float": (_number(float), 0),
    "string": (shown, 0),
    "abs": (_absolute, 0),
    "default": (_default, 2),
    "d": (_default, 2),
}
"""Name to function and the most arguments it takes."""

METHODS: dict[str, tuple[Callable[..., Any], int]] = {
    "lower": (_of_text("lower", str.lower), 0),
    "upper": (_of_text("upper", str.upper), 0),
    "strip": (_of_text("strip", str.strip), 0),
    "startswith": (_of_text("startswith", str.startswith), 1),
    "endswith": (_of_text("endswith", str.endswith), 1),
}
"""Name to function and the arguments it takes, exactly."""

TESTS: dict[str, Callable[[Any], bool]] = {
    "none": lambda value: value is None,
    "null": lambda value: value is None,
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "string": lambda value: isinstance(value, str),
    "number": lambda value: kind(value) == "a number",
    "boolean": lambda value: isinstance(value, bool),
    "mapping": lambda value: isinstance(value, dict),
    "sequence": lambda value: isinstance(value, list | tuple),
}
"""`defined` and `undefined` are the expression's own: they ask whether a name is there, not what it is."""
