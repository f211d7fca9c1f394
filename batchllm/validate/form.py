"""The form of a good answer: by a schema, or one of some labels. It says what providers are asked for and reads what came back.

The trap: the wire wants an object, users don't always. A list, a number or a label is asked for inside an object of one key and taken out again; a model that
gives it plainly is understood as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from batchllm.core import json
from batchllm.core.nouns import Wanted
from batchllm.validate.extract import NotJSON, extract
from batchllm.validate.schema import Schema, bare, is_object, is_strict, wire_name, wrapped
from batchllm.validate.verdict import Invalid, Parsed

_ANSWER = "answer"
_LABEL = "label"
_MARKS = " \t\r\n\"'`*_.,;:!\u201c\u201d"
"""What models put around a lone word."""


class Form(Protocol):
    """What answers are held against; made once per run."""

    @property
    def wanted(self) -> Wanted:
        """What requests carry of it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The top-level properties of `parsed`, or a name for it where it has none."""

    @property
    def whole(self) -> bool:
        """Whether `parsed` is one value without properties."""

    @property
    def example(self) -> str:
        """What a model is told to give, when it gave something else."""

    def read(self, text: str) -> Parsed | Invalid:
        """The value of an answer, or what is wrong with it."""


def _wanted(name: str, wire: Mapping[str, Any], logical: Any) -> Wanted:
    strict = is_strict(wire)
    form = {"type": "json_schema", "json_schema": {"name": name, "strict": strict, "schema": dict(wire)}}
    return Wanted(response_format=form, digest=json.digest(logical))


class SchemaForm:
    """Answers are JSON by a schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises `BadSchema`."""
        self._schema = Schema(schema)
        self._object = is_object(schema)
        inside = None if self._object else wrapped(schema, _ANSWER)
        self._inside = inside is not None
        # Of the schema itself, not of what the wire makes of it: a later version may send it otherwise, and no answer changes by that.
        self.wanted = _wanted(wire_name(schema, _ANSWER), bare(schema) if inside is None else inside, {"schema": self._schema.source})
        properties = schema.get("properties")
        self.whole = not (self._object and isinstance(properties, Mapping) and properties)
        self.columns: tuple[str, ...] = ("value",) if self.whole else tuple(schema["properties"])
        self.example = "one JSON value that is valid by the schema, and nothing else"

    def read(self, text: str) -> Parsed | Invalid:
        """The value, taken out of fences and sentences; valid by the schema."""
        try:
            value = extract(text, objects_only=self._object)
        except NotJSON as error:
            return Invalid(message=str(error))
        if self._inside and isinstance(value, dict) and set(value) == {_ANSWER}:
            inner = value[_ANSWER]
            if self._schema.is_valid(inner) or not self._schema.is_valid(value):
                value = inner
        if self._schema.is_valid(value):
            return Parsed(value=value)
        return Invalid(message=self._schema.errors(value))


class LabelForm:
    """Answers are one of some labels; `parsed` is the label."""

    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = {choice: choice for choice in choices}
        folded: dict[str, list[str]] = {}
        for choice in choices:
            folded.setdefault(choice.strip(_MARKS).casefold(), []).append(choice)
        self._folded = {key: found[0] for key, found in folded.items() if len(found) == 1 and key}
        wire = {
            "type": "object",
            "properties": {_LABEL: {"type": "string", "enum": list(choices)}},
            "required": [_LABEL],
            "additionalProperties": False,
        }
        self.wanted = _wanted(_LABEL, wire, {"choices": list(choices)})
        self.whole = True
        self.columns: tuple[str, ...] = (_LABEL,)
        self.example = f"one of: {', '.join(choices)}"

    def read(self, text: str) -> Parsed | Invalid:
        """The label: as `{"label": ...}`, as JSON text, or as the bare word in any case and with a full stop."""
        said: Any = text
        if "{" in text or text.lstrip().startswith('"'):
            try:
                said = extract(text, objects_only=True)
            except NotJSON:
                said = text
        if isinstance(said, dict):
            if set(said) != {_LABEL}:
                return Invalid(message=f'$: expected {{"{_LABEL}": ...}}, got the keys {", ".join(map(repr, said))[:100] or "of nothing"} (enum)')
            said = said[_LABEL]
        if isinstance(said, str):
            label = self._choices.get(said) or self._folded.get(said.strip(_MARKS).casefold())
            if label is not None:
                return Parsed(value=label)
        shown = said if isinstance(said, str) else json.text(said)
        return Invalid(message=f"$: {shown.strip()[:100]!r} is not one of {', '.join(self._choices)[:300]} (enum)")
