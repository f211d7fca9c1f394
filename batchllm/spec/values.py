"""The kinds of values that a spec's keys take, strict where a mistake costs money: text is not a number, `true` is not 1.

Each type's before-validator speaks to the user; its JSON Schema says the same to an editor.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from batchllm.core.money import PICO_PER_USD
from batchllm.spec import variables
from batchllm.spec.findings import shown


def wrong(message: str) -> NoReturn:
    """Refuses a value with a message of ours."""
    raise PydanticCustomError("spec", "{text}", {"text": message})


def wrong_at(path: tuple[str | int, ...], message: str) -> NoReturn:
    """Refuses a value further inside than the validator that found it out."""
    raise PydanticCustomError("spec_at", "{text}", {"text": message, "path": path})


class Part(BaseModel):
    """A group of keys. Unknown keys are refused; a null means the same as leaving the key out."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=(), use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # Only known keys: a misspelt key is an error with null, too.
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        wrong(f"expected a whole number, got {shown(value)}")
    return value


def _number(value: Any) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        wrong(f"expected a number, got {shown(value)}")
    return value


def _decimal(value: Any) -> Any:
    _number(value)
    try:
        return Decimal(str(value))
    except InvalidOperation:  # pragma: no cover - every finite number has a decimal form
        wrong(f"expected a number, got {shown(value)}")


def _limit(value: Any) -> Any:
    value = _whole(value)
    if value < 1:
        wrong(f"a limit of {value} would never send anything; leave it out to have it found, or write `limits: none` for no limit")
    return value


def _per_token(value: Decimal) -> Decimal:
    if (value * PICO_PER_USD / 10**6) % 1:
        wrong(f"at most six decimals (USD per million tokens), got {value}")
    return value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    for index, item in enumerate(value):
        if item in value[:index]:
            wrong(f"{item!r} is listed twice")
    return value


def _marks(value: str) -> str:
    problem = variables.problem_with(value)
    if problem is not None:
        wrong(problem)
    return value


def _delimiter(value: str) -> str:
    if len(value) != 1 or value in '\r\n"':
        wrong(f"expected one character, such as ',' or a tab (\"\\t\"), got {shown(value)}")
    return value


def _encoding(value: str) -> str:
    try:
        codecs.lookup(value)
    except LookupError:
        wrong(f"unknown encoding {shown(value)}; utf-8, utf-16, latin-1 and cp1252 are usual")
    return value


Text = Annotated[str, Field(min_length=1)]
"""A text that isn't empty."""
Flag = StrictBool
Expandable = Annotated[str, Field(min_length=1), AfterValidator(_marks)]
"""A text in which `${VAR}` is expanded at use."""
Whole = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Limit = Annotated[int, Field(ge=1), BeforeValidator(_limit)]
Seconds = Annotated[float, Field(ge=0), BeforeValidator(_number)]
PositiveSeconds = Annotated[float, Field(gt=0), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(_number)]
MOST_USD = 1_000_000
"""Sums are kept as pico-dollars in SQLite's 64-bit integers, which end above nine million dollars."""
_UsdSchema = Annotated[float, Field(ge=0, le=MOST_USD)]
Usd = Annotated[Decimal, Field(ge=0, le=MOST_USD), BeforeValidator(_decimal, json_schema_input_type=_UsdSchema)]
UsdPerMillion = Annotated[Decimal, Field(ge=0, le=MOST_USD), AfterValidator(_per_token), BeforeValidator(_decimal, json_schema_input_type=_UsdSchema)]
_Several = Annotated[list[Text], Field(min_length=1)]
Names = Annotated[
    tuple[Text, ...], Field(min_length=1), AfterValidator(_distinct), BeforeValidator(_one_or_more, json_schema_input_type=Text | _Several)
]
"""One name or a list of names."""
Columns = Annotated[tuple[Text, ...], AfterValidator(_distinct), BeforeValidator(_one_or_more, json_schema_input_type=Text | list[Text])]
Choices = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Texts, each once."""
Paths = Annotated[tuple[Expandable, ...], Field(min_length=1), BeforeValidator(_one_or_more, json_schema_input_type=Text | _Several)]
Delimiter = Annotated[str, AfterValidator(_delimiter), Field(json_schema_extra={"minLength": 1, "maxLength": 1})]
Encoding = Annotated[str, AfterValidator(_encoding), Field(json_schema_extra={"minLength": 1})]


REQUEST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "temperature": {"type": "number", "minimum": 0},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "max_tokens": {"type": "integer", "minimum": 1, "description": "Output cap in tokens; the bound that money is reserved by."},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "description": "Output cap in tokens, reasoning included."},
    "seed": {"type": "integer"},
    "stop": {"type": ["string", "array"], "items": {"type": "string"}},
    "presence_penalty": {"type": "number"},
    "frequency_penalty": {"type": "number"},
    "logit_bias": {"type": "object"},
    "logprobs": {"type": "boolean"},
    "top_logprobs": {"type": "integer", "minimum": 0},
    "response_format": {"type": "object"},
    "tools": {"type": "array", "items": {"type": "object"}},
    "tool_choice": {"type": ["string", "object"]},
    "parallel_tool_calls": {"type": "boolean"},
    "reasoning_effort": {"type": "string"},
    "verbosity": {"type": "string"},
    "service_tier": {"type": "string"},
    "user": {"type": "string"},
    "metadata": {"type": "object"},
}
"""Parameters of OpenAI's chat completions that editors complete; other names pass as they are, since providers have their own."""

_REFUSED_PARAMETERS = {
    "model": "the model is chosen by `models` and `routes`",
    "messages": "messages are made by `prompt`",
    "stream": "use `stream` at the top level",
    "stream_options": "use `stream` at the top level",
}
_REFUSED_IN_BODY = {
    **_REFUSED_PARAMETERS,
    "max_tokens": "money is reserved by it: set it under `request`",
    "max_completion_tokens": "money is reserved by it: set it under `request`",
    "n": "use `samples` for several answers",
}
_REFUSED_INSIDE_BODY = {
    ("generationConfig", "maxOutputTokens"): "money is reserved by it: set max_tokens under `request`",
    ("generationConfig", "candidateCount"): "use `samples` for several answers",
}
"""The same in the objects that wires have inside their bodies."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}
_TYPE_NAMES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "keys and values",
}


def parameter_problem(name: str, value: Any) -> str | None:
    """What is wrong with one parameter of a `request`; None when nothing is known to be."""
    if name in _REFUSED_PARAMETERS:
        return f"`{name}` can't be set here: {_REFUSED_PARAMETERS[name]}"
    if value is None:
        return None
    if name == "n":
        return None if value == 1 and value is not True else "only one answer per request: use `samples` for several"
    known = REQUEST_PARAMETERS.get(name)
    if known is None:
        return None
    types = known["type"] if isinstance(known["type"], list) else [known["type"]]
    if not any(_is(value, kind) for kind in types):
        return f"expected {' or '.join(_TYPE_NAMES[kind] for kind in types)}, got {shown(value)}"
    if "minimum" in known and value < known["minimum"]:
        return f"must be at least {known['minimum']}, got {shown(value)}"
    if "maximum" in known and value > known["maximum"]:
        return f"must be at most {known['maximum']}, got {shown(value)}"
    return None


def body_problem(name: str, value: Any) -> str | None:
    """What is wrong with one key of a model's raw `body`: it is merged last, so it must not undo what the engine relies on."""
    if name == "n" and value == 1 and value is not True:
        return None
    for inner in value if isinstance(value, dict) else ():
        if (name, inner) in _REFUSED_INSIDE_BODY:
            return f"`{name}.{inner}` can't be set here: {_REFUSED_INSIDE_BODY[name, inner]}"
    return f"`{name}` can't be set here: {_REFUSED_IN_BODY[name]}" if name in _REFUSED_IN_BODY else None


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
