"""The key `hosts`: servers of one's own that bend OpenAI's wire, inline or in a file beside the job. Same columns as the rows that come with the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from batchllm.core.errors import SpecError
from batchllm.spec.explain import words
from batchllm.spec.findings import dotted, shown
from batchllm.spec.hosts import BY_NAME, PLAIN, CompatibleHost
from batchllm.spec.model import header_name_problem, url_problem
from batchllm.spec.reading import read
from batchllm.spec.values import Flag, Part, Text, wrong


def _like(value: str) -> str:
    return value if value in BY_NAME else wrong(f"no host is called {value!r}; there are: {', '.join(BY_NAME)}")


def _url(value: str) -> str:
    problem = url_problem(value)
    return wrong(problem) if problem else value


def _header(value: str) -> str:
    problem = header_name_problem(value)
    return wrong(problem) if problem else value


class HostSpec(Part):
    """How one server bends OpenAI's wire; what is left out is as `like` has it, else plain."""

    like: Annotated[Text, AfterValidator(_like)] | None = None
    """A host that comes with the program and is the same but for the keys below."""
    base_url: Annotated[Text, AfterValidator(_url)] | None = None
    """Where it is, for models that give no `base_url`."""
    api_key_env: Text | None = None
    """The environment variable that holds the key of models that give no `base_url`; none is sent without it."""
    output_cap: Literal["max_tokens", "max_completion_tokens", "any"] | None = None
    """The only name of the output cap that it reads; any: as the request spells it. Default: max_tokens."""
    rename: dict[str, Text] | None = None
    """Parameters that it has under another name, such as {seed: random_seed}."""
    drop: tuple[Text, ...] | None = None
    """Parameters that it refuses: left out, with a warning."""
    key_header: Annotated[Text, AfterValidator(_header)] | None = None
    """The header that carries the key as it is; default: Authorization, with `Bearer` before it."""
    deployments: Flag | None = None
    """Whether the model is named in the path, as in Azure's classic /openai/deployments/MODEL/..."""
    query: dict[str, Text] | None = None
    """What follows `?` in every URL, such as {api-version: "2024-10-21"}."""
    stream_usage: Flag | None = None
    """Whether it takes `stream_options: {include_usage: true}`. Default: yes."""
    json_schema: Flag | None = None
    """Whether `response_format` may be a JSON Schema; else JSON is asked for, and the schema only checked. Default: yes."""
    requests_per: Literal["minute", "day"] | None = None
    """What the request limit in its headers is counted over."""

    def row(self, name: str) -> CompatibleHost:
        """The host as the codecs read it."""
        like = BY_NAME[self.like] if self.like is not None else PLAIN
        given: dict[str, Any] = {
            key: value for key in self.model_fields_set if key not in {"like", "api_key_env"} and (value := getattr(self, key)) is not None
        }
        if self.output_cap == "any":
            given["output_cap"] = None
        if self.api_key_env is not None:
            given["key_env"] = self.api_key_env
        return replace(like, name=name, **given)


_FILE: TypeAdapter[dict[str, HostSpec]] = TypeAdapter(dict[str, HostSpec])


def _read(value: Any, info: ValidationInfo) -> Any:
    """What the key names, if it is the path of a file; read when the spec is."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or not value:
        wrong(f"expected hosts by name, or the path of a file of them, got {shown(value)}")
    folder: Path = (info.context or {}).get("folder") or Path.cwd()
    try:
        found = read((folder / value).read_bytes().decode("utf-8-sig"), file=value)
        return _FILE.validate_python(found.data) if not found.problems else wrong("; ".join(map(str, found.problems)))
    except SpecError as error:
        return wrong("; ".join(map(str, error.problems)))
    except FileNotFoundError:
        return wrong(f"no such file: {value} (looked for in {folder})")
    except (OSError, UnicodeDecodeError) as error:
        return wrong(f"{value} can't be read: {error}")
    except ValidationError as error:
        return wrong("; ".join(f"{value}: {dotted(detail['loc'])}: {_words(detail)}" for detail in error.errors(include_url=False)))


def _words(detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key; possible here: {', '.join(HostSpec.model_fields)}"
    return words(detail)


Hosts = Annotated[
    dict[str, HostSpec],
    BeforeValidator(_read, json_schema_input_type=Text | dict[str, HostSpec]),
    Field(json_schema_extra={"examples": ["hosts.yaml"]}),
]
"""Hosts by a name of one's own."""


def named(name: str, own: Mapping[str, HostSpec]) -> CompatibleHost | None:
    """The host that a model names: one's own first, then those that come with the program; None when there is none."""
    return own[name].row(name) if name in own else BY_NAME.get(name)
