"""A program's own functions as tools of a model: what the model is told of each comes from its signature and docstring, and pydantic reads its arguments.

The trap: what the model is told is part of every request, so it must be the same in every run - it depends on names, annotations, defaults and the
docstring's words, never on a value of this process. What can't be told plainly (`*args`, a parameter without a type) is refused at once, before any money is spent.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, NotRequired, Required, get_args, get_origin

from pydantic import ConfigDict, Field, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.tools import TIMEOUT_SECONDS, TURNS, Tool, Toolkit
from batchllm.spec import JobSpec

AnyTools = Toolkit | Iterable[Callable[..., Any]]
"""Functions, or `Tools(...)` of them."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_SECTION = re.compile(r"(Args|Arguments|Parameters):\s*\Z")
_ARGUMENT = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)\Z")
_SPHINX = re.compile(r"\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)\Z")
_BEFORE_SLASH: Mapping[Any, str] = {inspect.Parameter.POSITIONAL_ONLY: " before a `/`"}
_SHOWN_ERRORS = 5


def Tools(*functions: Callable[..., Any], turns: int = TURNS, timeout_seconds: float = TIMEOUT_SECONDS) -> Toolkit:  # noqa: N802 - it reads as the type that it gives
    """Functions that a model may call, with how often and how long.

        def price(city: str, nights: int = 1) -> float:
            '''What a stay costs, in euros.

            Args:
                city: Where.
                nights: How many.
            '''

        batchllm.run(job, tools=batchllm.Tools(price, turns=4, timeout_seconds=10))

    Names, annotations, defaults and docstring are what the model is told; its arguments are checked against the annotations before a function is called, and come
    as what they are annotated with (dataclasses, pydantic models, Literal, lists...). A plain function runs in a thread, an async one in the run's loop; the calls of one turn run side
    by side. What a function returns goes back to the model: a text as it is, anything else as JSON. What it raises goes back as one line, and the row goes on.

    Rows share answers (`dedupe`, `cache`) only where `dedupe` is true: functions may say another thing each time.

    `turns`: requests per row and model, the one with the answer included; a row whose model still calls then fails with `tool_turns`.
    `timeout_seconds`: of one call. A row that is cut half-way (a crash, Ctrl-C) begins anew in the next run: its functions may be called again.
    Raises SpecError for a function that can't be told to a model.
    """
    if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
        raise SpecError(f"tools: turns: expected a whole number from 1 on, got {turns!r}")
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float) or not timeout_seconds > 0:
        raise SpecError(f"tools: timeout_seconds: expected seconds above 0, got {timeout_seconds!r}")
    if not functions:
        raise SpecError("tools: give at least one function, or leave `tools` out")
    problems: list[Problem] = []
    tools: dict[str, Tool] = {}
    for function in functions:
        try:
            tool = _tool(function)
        except _Unfit as unfit:
            problems.append(Problem(path="tools", message=str(unfit)))
            continue
        if tool.name in tools:
            problems.append(Problem(path="tools", message=f"two functions are called {tool.name!r}; a model tells them apart by their names"))
        tools[tool.name] = tool
    if problems:
        raise SpecError(problems)
    return Toolkit(tools=tools, turns=turns, timeout_seconds=float(timeout_seconds))


def toolkit_of(tools: Any) -> Toolkit:
    """What `tools=` of the API means. Raises SpecError."""
    if isinstance(tools, Toolkit):
        return tools
    if callable(tools):
        tools = [tools]
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise SpecError(f"tools: expected functions, or batchllm.Tools(...) of them, got {type(tools).__name__}")
    return Tools(*tools)


def with_declarations(declared: Any, toolkit: Toolkit) -> list[Any]:
    """`request.tools` of a job whose request declares some of its own. Raises SpecError for a name that is there twice."""
    own = list(declared) if isinstance(declared, list | tuple) else []
    names = {
        function["name"] for tool in own if isinstance(tool, Mapping) and isinstance(function := tool.get("function"), Mapping) and "name" in function
    }
    for name in toolkit.tools:
        if name in names:
            raise SpecError(Problem(path="tools", message=f"{name!r} is declared under `request.tools` and given as a function; leave one out"))
    return [*own, *toolkit.declarations]


def equipped(spec: JobSpec, toolkit: Toolkit) -> JobSpec:
    """The job with these functions. Raises SpecError."""
    if spec.toolkit is not None:
        raise SpecError(Problem(path="tools", message="the job has functions already: give them to `Job` or to the call, not to both"))
    return spec.with_toolkit(toolkit, with_declarations(spec.request.get("tools"), toolkit))


class _Unfit(Exception):  # noqa: N818 - a SpecError a moment later
    """No tool can be made of it; the text says why, and the mend."""


class _Plain(GenerateJsonSchema):
    """Schemas without the titles that pydantic makes of names: each request would pay for them."""

    def field_title_should_be_set(self, schema: CoreSchema | core_schema.ModelField | Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def _tool(function: Any) -> Tool:
    if isinstance(function, Mapping):
        raise _Unfit("expected functions; a tool that is written as JSON goes under `request: {tools: [...]}`, and its calls come back in the result")
    if not callable(function) or isinstance(function, type):
        raise _Unfit(f"expected functions, got {function!r:.80}")
    named = function.func if isinstance(function, partial) else function
    name = getattr(named, "__name__", None) or type(named).__name__
    if not _NAME.match(name):
        raise _Unfit(f"a tool can't be called {name!r}: define it by `def` with a name of letters, digits and _")
    description, told = _docstring(inspect.getdoc(named) or "")
    adapter, schema = _parameters(name, function, told)
    form: dict[str, Any] = {"name": name, "parameters": schema}
    if description:
        form["description"] = description
    return Tool(
        name=name,
        declaration={"type": "function", "function": form},
        read=lambda text: _read(adapter, text),
        call=function,
        is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)),  # noqa: B004 - an object may have an async one
    )


def _parameters(name: str, function: Callable[..., Any], told: Mapping[str, str]) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """What reads the arguments, and their JSON Schema."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError, SyntaxError, AttributeError) as error:
        raise _Unfit(f"{name}: its signature can't be read: {error}") from None
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise _Unfit(f"{name}: a model gives each argument by its name, so there can be no `{parameter}`{_BEFORE_SLASH.get(parameter.kind, '')}")
        if parameter.annotation is parameter.empty:
            raise _Unfit(f"{name}: what is `{parameter.name}`? Give it a type, e.g. `{parameter.name}: str`")
        required = parameter.default is parameter.empty
        described = _described(parameter.annotation, told.get(parameter.name))
        fields[parameter.name] = Required[described] if required else NotRequired[described]
        if not required:
            defaults[parameter.name] = parameter.default
    make: Any = TypedDict  # what the signature says is only known now
    form = make(name, fields)
    form.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(form)
        schema = adapter.json_schema(schema_generator=_Plain)
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError, TypeError) as error:
        words = str(error).partition("\n")[0].partition(". Set `arbitrary_types_allowed")[0]
        raise _Unfit(f"{name}: a parameter has a type that JSON can't carry: {words}") from None
    schema.pop("title", None)
    for parameter_name, default in defaults.items():
        try:
            shown = json.loads(json.dumps(default))
        except TypeError:
            continue
        if shown is not None:
            schema["properties"][parameter_name].setdefault("default", shown)
    schema.setdefault("properties", {})
    return adapter, schema


def _described(annotation: Any, told: str | None) -> Any:
    """The annotation with its description: that of a `Field`, a text in `Annotated`, or the docstring's."""
    if get_origin(annotation) is Annotated:
        notes = get_args(annotation)[1:]
        if any(isinstance(note, FieldInfo) and note.description for note in notes):
            return annotation
        told = next((note for note in notes if isinstance(note, str)), told)
    return Annotated[annotation, Field(description=told)] if told else annotation


def _read(adapter: TypeAdapter[Any], text: str) -> Mapping[str, Any]:
    """Keyword arguments. Raises ValueError with words for the model."""
    try:
        found: Mapping[str, Any] = adapter.validate_json(text.strip() or "{}")
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(str(step) for step in one['loc']) or 'arguments'}: {one['msg']}" for one in wrong[:_SHOWN_ERRORS]]
        raise ValueError("; ".join(told)) from None
    return found


def _docstring(doc: str) -> tuple[str, dict[str, str]]:
    """(the first paragraph, what is said of each parameter), as Google and Sphinx write them."""
    lines = doc.splitlines()
    first: list[str] = []
    for line in lines:
        if not line.strip() or _SECTION.match(line) or _SPHINX.match(line):
            break
        first.append(line.strip())
    told: dict[str, str] = {}
    inside = False
    indent: int | None = None
    last: str | None = None
    for line in lines:
        sphinx = _SPHINX.match(line)
        argument = _ARGUMENT.match(line) if inside else None
        if sphinx is not None:
            last, told[sphinx[1]] = sphinx[1], sphinx[2].strip()
        elif _SECTION.match(line):
            inside, indent, last = True, None, None
        elif argument is not None and (indent is None or len(argument[1]) == indent):
            indent, last = len(argument[1]), argument[2]
            told[last] = argument[3].strip()
        elif line.strip() and line.startswith(" ") and last is not None:
            told[last] = f"{told[last]} {line.strip()}".strip()
        else:
            inside, last = inside and not line.strip(), None
    return " ".join(first), {name: words for name, words in told.items() if words}
