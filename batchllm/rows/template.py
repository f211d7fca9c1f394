"""Prompt texts in Jinja syntax, filled from rows: sandboxed, with a fuel limit, strict about names, and in JSON where a value is no text.

Traps of the engine that are closed here: it shows Python's own words for null, true and objects (a finalizer writes JSON instead, and nothing for null); a
row's objects stay Python objects whose methods a template could call (it works on a copy, and what is no JSON value never gets into a prompt);
`tojson` escapes `<` for HTML (ours doesn't); `random` would give every run another prompt (it is taken out). Left as they are: `~` and
`|string` write Python's words for objects (use `|tojson` there), and the engine hands a whole float on as an integer, so that `{{ 5.0 }}` is shown as 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import minijinja
import orjson

FUEL = 1_000_000
"""Instructions one text may take, some 20 ms; a plain placeholder takes three."""

_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_SUBSCRIPT = re.compile(r"\brow\s*\[\s*(?:'([^'\\]*)'|\"([^\"\\]*)\")\s*\]")
_JSON_TYPES = frozenset({str, int, float, bool, type(None), dict, list, tuple})
_NOT_DATA = frozenset({"row", "loop", "self", "super", "caller", "varargs", "kwargs"})
_MISSING = frozenset({"UndefinedError", "UnknownFilter", "UnknownTest", "UnknownFunction"})
_METHODS = frozenset({"get", "items", "keys", "values"})


class NotFilled(Exception):  # noqa: N818 - it is data a moment later
    """A text can't be filled from this row."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        """Whether a name is missing: in the row, or among the engine's filters, tests and functions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A column that a text needs."""

    column: str
    line: int
    """1-based, in the text."""


class Text:
    """One compiled text."""

    __slots__ = ("_engine", "calls", "label", "problem", "source")

    def __init__(self, engine: Engine, source: str, label: str) -> None:
        self.source = source
        self.label = label
        """What people call it, e.g. `prompt.user`."""
        self.problem: str | None = None
        """Its syntax error."""
        self.calls = any("(" in tag for tag in _TAG.findall(source))
        """Whether it may call methods of the row's objects."""
        self._engine = engine
        try:
            engine.environment.add_template(label, source)
        except minijinja.TemplateError as error:
            self.problem = f"{_where(label, error)}: {error.detail or error.message}"

    def fill(self, context: Mapping[str, Any]) -> str:
        """The text with the row's values. Raises `NotFilled`."""
        if self.problem:
            raise NotFilled(self.problem)
        try:
            return self._engine.environment.render_template(self.label, **context)
        except minijinja.TemplateError as error:
            raise NotFilled(_told(self.label, error), missing=error.kind in _MISSING) from None
        except Exception as error:  # noqa: BLE001 - a method called with wrong arguments may raise anything; the row fails, not the run
            raise NotFilled(f"{self.label}: {error or type(error).__name__}") from None

    def names(self) -> Iterator[Name]:
        """The columns it can't do without: those that it doesn't itself ask for by `is defined` or give a `default`."""
        if self.problem:
            return
        tags = " ".join(_TAG.findall(self.source))
        seen: set[str] = set()
        for path in sorted(self._engine.environment.undeclared_variables_in_template(self.label, nested=True)):
            head, _, rest = path.partition(".")
            if head == "row" and rest:
                column = rest.partition(".")[0]
                if column not in _METHODS or not re.search(rf"\brow\s*\.\s*{column}\s*\(", tags):
                    seen.add(column)
            elif head not in _NOT_DATA and not (head in self._engine.builtins and re.search(rf"(?<![\w.]){head}\s*\(", tags)):
                # `range` without a call means a column.
                seen.add(head)
        # Not among the engine's names; a template that sets its own `row` is left alone.
        if re.search(r"\brow\b", tags) and not re.search(r"\bset\s+row\b", tags):
            seen.update(single or double for single, double in _SUBSCRIPT.findall(tags))
        for column in sorted(seen):
            if not _is_guarded(tags, column):
                yield Name(column=column, line=self._line(column))

    def _line(self, column: str) -> int:
        for tag in _TAG.finditer(self.source):
            place = re.search(rf"(?<!\w){re.escape(column)}(?!\w)", tag.group())
            if place:
                return self.source.count("\n", 0, tag.start() + place.start()) + 1
        return 1


class Engine:
    """One sandbox for all texts of a prompt; counts the nulls that were shown as nothing."""

    def __init__(self) -> None:
        self.nulls = 0
        self.environment = minijinja.Environment(
            undefined_behavior="strict",
            fuel=FUEL,
            keep_trailing_newline=True,
            # Texts are prompts whatever their label ends with: nothing is escaped.
            auto_escape_callback=lambda _: None,
            finalizer=self._show,
            filters={"tojson": _tojson},
        )
        self.environment.remove_filter("random")
        self.environment.remove_global("debug")
        self.builtins = frozenset(self.environment.globals)

    def text(self, source: str, label: str) -> Text | str:
        """A compiled text, or the source itself where there is nothing to fill."""
        if "{{" in source or "{%" in source or "{#" in source:
            return Text(self, source, label)
        return source

    def _show(self, value: Any) -> Any:
        if type(value) is str:
            return value
        if value is None:
            self.nulls += 1
            return ""
        if type(value) in _JSON_TYPES:
            return orjson.dumps(value).decode()
        if isinstance(value, str):
            return str(value)
        raise NotFilled(f"the value of an expression is no data but {str(value)[:40]!r}; name a column, or call the method")


def _tojson(value: Any, indent: int | bool | None = None) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode()


def _where(label: str, error: minijinja.TemplateError) -> str:
    return f"{label}, line {error.line}" if error.line and error.line > 1 else label


def _told(label: str, error: minijinja.TemplateError) -> str:
    where = _where(label, error)
    if error.kind == "OutOfFuel":
        return f"{where}: takes too long (a very long loop?); make the text simpler"
    if error.kind == "UndefinedError":
        detail = error.detail or "a value is undefined"
        named = detail.split("`")[1] if detail.count("`") == 2 else "name"
        return f"{where}: {detail} in this row; give it a default: `{{{{ {named} | default('') }}}}`"
    return f"{where}: {error.detail or error.message}"


def _is_guarded(tags: str, column: str) -> bool:
    name = re.escape(column)
    end = rf"(?<!\w){name}(?!\w)\s*(?:['\"]\s*\])?\s*"
    return bool(
        re.search(rf"{end}(?:is\s+(?:not\s+)?(?:un)?defined|\|\s*(?:default|d)\b)", tags) or re.search(rf"\brow\s*\.\s*get\(\s*['\"]{name}", tags)
    )
