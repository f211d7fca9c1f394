"""What a model is told of a function, what it may send back, and what can't be a tool."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from batchllm.api.tools import Tools, toolkit_of, with_declarations
from batchllm.core.errors import SpecError


@dataclass
class Guest:
    """Somebody."""

    name: str
    age: int = 30


class Room(BaseModel):
    beds: int = Field(ge=1, description="How many.")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def book(
    guest: Guest,
    room: Room,
    kind: Literal["single", "double"] = "single",
    wishes: list[str] | None = None,
    rates: Optional[dict[str, float]] = None,  # noqa: UP045 - both spellings are tested
    *,
    when: date,
    color: Color = Color.RED,
    note: Annotated[str, "For the kitchen."] = "",
    count: Annotated[int, Field(description="How often.", le=3)] = 1,
) -> str:
    """Books a room
    at the hotel.

    It takes a while.

    Args:
        guest: Who comes.
        kind (str): Single
            or double.
        note: Not this one.

    Returns:
        when: not a parameter here.
    """
    return f"{guest}{room}{kind}{wishes}{rates}{when}{color}{note}{count}"


def parameters(function: Any) -> dict[str, Any]:
    (tool,) = Tools(function).tools.values()
    form = tool.declaration["function"]["parameters"]
    assert isinstance(form, dict)
    return form


def test_a_signature_becomes_a_schema():
    (tool,) = Tools(book).tools.values()
    function = tool.declaration["function"]
    assert tool.declaration["type"] == "function"
    assert (function["name"], function["description"]) == ("book", "Books a room at the hotel.")
    form = function["parameters"]
    assert (form["type"], form["additionalProperties"], form["required"]) == ("object", False, ["guest", "room", "when"])
    told = form["properties"]
    assert told["kind"] == {"type": "string", "enum": ["single", "double"], "default": "single", "description": "Single or double."}
    assert told["wishes"] == {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    assert told["rates"]["anyOf"][0] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert told["when"] == {"type": "string", "format": "date"}
    assert told["note"] == {"type": "string", "description": "For the kitchen.", "default": ""}
    assert told["count"] == {"type": "integer", "description": "How often.", "maximum": 3, "default": 1}
    assert told["color"]["default"] == "red"
    assert told["guest"]["description"] == "Who comes."
    assert form["$defs"]["Room"]["properties"]["beds"] == {"type": "integer", "minimum": 1, "description": "How many."}
    assert form["$defs"]["Color"]["enum"] == ["red", "blue"]


def test_arguments_come_as_what_they_are_annotated_with():
    (tool,) = Tools(book).tools.values()
    read = tool.read('{"guest": {"name": "Ines"}, "room": {"beds": 2}, "when": "2027-03-12", "color": "blue"}')
    assert read == {"guest": Guest(name="Ines"), "room": Room(beds=2), "when": date(2027, 3, 12), "color": Color.BLUE}
    assert "kind='single'" not in tool.call(**read)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"guest": {"name": "x"}, "room": {"beds": 0}, "when": "2027-03-12"}', "room.beds: Input should be greater than or equal to 1"),
        ('{"guest": {}, "room": {"beds": 1}, "when": "soon"}', "guest.name: Field required; when: Input should be a valid date"),
        ('{"guest": {"name": "x"}, "room": {"beds": 1}, "when": "2027-03-12", "kind": "triple"}', "kind: Input should be 'single' or 'double'"),
        ('{"guest": {"name": "x"}, "room": {"beds": 1}, "when": "2027-03-12", "self": 1}', "self: Extra inputs are not permitted"),
        ('"book"', "arguments: Input should be an object"),
        ("not JSON " * 1000, "arguments: Invalid JSON"),
    ],
)
def test_arguments_that_dont_fit_are_named(text, words):
    (tool,) = Tools(book).tools.values()
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        tool.read(text)
    assert len(str(caught.value)) < 500


def sphinx(city: str, json: bool, schema: int, model_config: str) -> None:
    """Says.

    :param city: Where it is,
        and where not.
    :param bool json: Whether.
    """


def test_sphinx_docstrings_and_names_that_others_keep_for_themselves():
    told = parameters(sphinx)["properties"]
    assert {name: part.get("description") for name, part in told.items()} == {
        "city": "Where it is, and where not.",
        "json": "Whether.",
        "schema": None,
        "model_config": None,
    }
    assert set(Tools(sphinx).tools["sphinx"].read('{"city": "", "json": true, "schema": 1, "model_config": ""}')) == set(told)


class Desk:
    async def answer(self, word: str) -> str:
        """Answers."""
        return word

    async def __call__(self, word: str) -> str:
        """Calls."""
        return word


def nothing() -> str:
    return ""


def test_methods_objects_partials_and_functions_without_parameters():
    kit = Tools(Desk().answer, Desk(), partial(book, note="x", when=date(2027, 1, 1)), nothing)
    assert list(kit.tools) == ["answer", "Desk", "book", "nothing"]
    assert [tool.is_async for tool in kit.tools.values()] == [True, True, False, False]
    assert parameters(Desk().answer)["required"] == ["word"]
    assert parameters(nothing) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert "description" not in kit.tools["nothing"].declaration["function"]
    assert kit.tools["nothing"].read("") == {}


def untyped(city):
    return city


def stars(*cities: str) -> None: ...


def keywords(**cities: str) -> None: ...


def slashed(city: str, /) -> None: ...


def strange(city: complex | threading) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - a name that isn't there


def opaque(desk: Desk) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "untyped: what is `city`? Give it a type, e.g. `city: str`"),
        (stars, "stars: a model gives each argument by its name, so there can be no `*cities: "),
        (keywords, "no `**cities: "),
        (slashed, "before a `/`"),
        (strange, "strange: its signature can't be read: name 'threading' is not defined"),
        (opaque, "opaque: a parameter has a type that JSON can't carry"),
        (lambda city: city, "a tool can't be called '<lambda>'"),
        (3, "expected functions, got 3"),
        (Guest, "expected functions, got <class"),
        ({"type": "function"}, "goes under `request: {tools: "),
    ],
)
def test_what_cant_be_a_tool_is_refused(function, words):
    with pytest.raises(SpecError, match=re.escape(words)):
        Tools(function)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Tools, "at least one"),
        (lambda: Tools(nothing, nothing), "two functions are called 'nothing'"),
        (lambda: Tools(nothing, turns=0), "turns: expected a whole number from 1 on, got 0"),
        (lambda: Tools(nothing, timeout_seconds=0), "timeout_seconds: expected seconds above 0"),
        (lambda: toolkit_of("nothing"), "expected functions, or batchllm.Tools"),
        (lambda: toolkit_of([]), "at least one"),
        (lambda: with_declarations([{"type": "function", "function": {"name": "nothing"}}], Tools(nothing)), "leave one out"),
        (lambda: Tools(untyped, stars), "untyped(.|\n)*stars"),
    ],
)
def test_wrong_uses_are_refused(make, words):
    with pytest.raises(SpecError, match=words):
        make()
    assert toolkit_of(nothing).declarations == toolkit_of([nothing]).declarations == toolkit_of(Tools(nothing)).declarations
