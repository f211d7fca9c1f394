"""Whether `tools` and `tool_choice` of a request are what some wire takes: said before the first of ten thousand rows is refused for it.

Functions have OpenAI's form, flat as well (its Responses API). Providers' own tools (a `type` of their own, or a lone key such as Gemini's `googleSearch`) pass as
they are; Anthropic's function form (`name`, `input_schema`) is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batchllm.spec.findings import did_you_mean, shown

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_FORM = "{type: function, function: {name: ..., description: ..., parameters: {JSON Schema}}}"
_CHOICES = frozenset({"auto", "none", "required", "any", "validated"})
Path = tuple[str | int, ...]


def tool_problems(params: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """(where, what is wrong and the mend), for the parameters of a request. Schemas are others' to judge."""
    tools = params.get("tools")
    if tools is not None and not isinstance(tools, list | tuple):
        yield ("tools",), f"expected a list of tools, got {shown(tools)}"
    names: list[str] = []
    for index, tool in enumerate(tools if isinstance(tools, list | tuple) else ()):
        problem = _problem(tool)
        if problem is not None:
            yield ("tools", index, *problem[0]), problem[1]
            continue
        name = _function(tool).get("name")
        if isinstance(name, str):
            if name in names:
                yield ("tools", index), f"two tools are called {name!r}"
            names.append(name)
    choice = params.get("tool_choice")
    if choice is not None and not isinstance(choice, Mapping) and not (isinstance(choice, str) and choice in _CHOICES):
        yield ("tool_choice",), f"expected auto, none, required, or {{type: function, function: {{name: ...}}}}, got {shown(choice)}"
    wanted = _function(choice).get("name") if isinstance(choice, Mapping) else None
    if isinstance(wanted, str) and names and wanted not in names:
        yield ("tool_choice",), f"no tool is called {wanted!r}{did_you_mean(wanted, names)}"


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _problem(tool: Any) -> tuple[Path, str] | None:
    if not isinstance(tool, Mapping) or not tool:
        return (), f"a tool is {_FORM}, got {shown(tool)}"
    kind = tool.get("type")
    if kind is None:
        if "function" in tool or ("name" in tool and "input_schema" not in tool):
            return (), f"a tool is {_FORM}; this one has no `type`"
        return None
    if not isinstance(kind, str):
        return ("type",), f"expected text such as function, got {shown(kind)}"
    if kind != "function":
        return None
    inside: Path = ()
    if "function" in tool:
        inside = ("function",)
        if not isinstance(tool["function"], Mapping):
            return inside, f"expected {{name: ..., parameters: ...}}, got {shown(tool['function'])}"
    function = _function(tool)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        words = "needs a `name`" if name is None else f"`name` is made of letters, digits, _ and -, got {shown(name)}"
        return inside, f"a tool {words}"
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        return (*inside, "parameters"), f"expected a JSON Schema, got {shown(parameters)}"
    return None


def tool_schemas(params: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """(where, JSON Schema of the arguments) of each function."""
    tools = params.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list | tuple) else ()):
        if isinstance(tool, Mapping) and tool.get("type") == "function":
            inside: Path = ("function",) if isinstance(tool.get("function"), Mapping) else ()
            parameters = _function(tool).get("parameters")
            if isinstance(parameters, Mapping):
                yield ("tools", index, *inside, "parameters"), parameters
