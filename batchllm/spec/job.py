"""The whole spec as one frozen value, with the paths that follow from it.

Relative paths are relative to the spec's folder. `${VAR}` stays as written in every attribute, so that nothing secret reaches the store; the methods
that take `environ` fill it in.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from batchllm.core import json
from batchllm.core.errors import Problem
from batchllm.core.tools import Toolkit
from batchllm.spec.changes import apply
from batchllm.spec.deadline import FORMS, is_deadline
from batchllm.spec.findings import Finding, Written, locate, shown
from batchllm.spec.hosts import BY_NAME
from batchllm.spec.model import ModelSpec, Request
from batchllm.spec.own_hosts import Hosts, named
from batchllm.spec.parts import (
    BudgetSpec,
    Cache,
    ContextSpec,
    Dedupe,
    Input,
    LimitGroupSpec,
    MaxFailedKey,
    OutputSpec,
    OverridesSpec,
    RetrySpec,
    Route,
)
from batchllm.spec.prices import Prices
from batchllm.spec.prompt import Prompt
from batchllm.spec.values import Count, Expandable, Flag, Part, Text, wrong, wrong_at
from batchllm.spec.variables import expand, literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a spec comes from: enough to build it again with other changes."""

    written: Written = field(default_factory=lambda: Written(data={}))
    """Before `changes`."""
    text: str = "{}"
    path: Path | None = None
    folder: Path = field(default_factory=Path.cwd)
    changes: Mapping[str, Any] = field(default_factory=dict)
    toolkit: Toolkit | None = None
    """A program's functions; `request.tools` of the data declares them."""


def _name(value: str) -> str:
    if value in {".", ".."} or any(character in "/\\" or ord(character) < 32 for character in value) or len(value.encode(errors="replace")) > 200:
        wrong(f"names the store and the results, so it must be a file name without slashes, got {shown(value)}")
    return value


def _deadline(value: str) -> str:
    return value if is_deadline(value) else wrong(f"{FORMS}, got {shown(value)}")


class JobSpec(Part):
    """A job: what is asked of which models, within which limits, for how much. Keys as in a spec file; see `batchllm schema`."""

    name: Annotated[Text, AfterValidator(_name)] = "job"
    """Names the store and the results; default: the file's stem."""
    extends: Text | None = None
    """Path of a spec that this one is laid over, key by key: objects are merged, everything else is replaced, null takes a key away. Paths in it are relative to it."""
    input: Input | None = None
    """Where the rows come from: a path, a glob, a list of them, or an object that also says how they are read, filtered and joined."""
    id: Text | None = None
    """Column that holds `custom_id`; default: "custom_id" if the first readable row has it, else the row number."""
    prompt: Prompt | None = None
    """A text, {file: PATH}, system and user, or messages. Without it rows carry their own prompt or messages."""
    overrides: OverridesSpec = OverridesSpec()
    """Columns by which a row may pin a model or override parameters."""
    request: Request = Field(default_factory=dict)
    """Parameters of every request, with the names of OpenAI's chat completions, for every provider."""
    endpoint: Literal["chat", "completions", "embeddings", "responses"] = "chat"
    """What is called."""
    concurrency: Count | None = None
    """Requests in flight in the whole run; default: automatic."""
    models: dict[str, ModelSpec]
    """Models by a name of your own."""
    hosts: Hosts = Field(default_factory=dict)
    """Servers of your own that bend OpenAI's wire, by name, or the path of a file of them; a model names one by `host`."""
    prices: Prices | None = None
    """A file of prices by model id, `gpt-6-luna: {input: 0.10, output: 0.50}`; a model's own `price` wins over it, and it over the price book."""
    limit_groups: dict[str, LimitGroupSpec] = Field(default_factory=dict)
    """Limits that several models share."""
    routes: tuple[Route, ...] = ()
    """Which rows go to which models; the first rule that matches wins. Optional with a single model."""
    output: OutputSpec = OutputSpec()
    """What a good answer is, and what is kept with it."""
    samples: Count | None = None
    """Independent answers per row."""
    stream: Flag = False
    """Whether answers are streamed."""
    retry: RetrySpec = RetrySpec()
    """How long and how often to try."""
    budget: BudgetSpec = BudgetSpec()
    """Hard caps over the store's whole life."""
    deadline: Annotated[str, AfterValidator(_deadline), Field(json_schema_extra={"pattern": r"^\d"})] | None = None
    """Local time (the next one after the run's start), ISO time, or a duration such as 8h."""
    prefer: Literal["order", "cheapest", "fastest"] = "order"
    """In which order the models of a chain are asked: as routed, by price, or by how fast they have answered in this run."""
    context: ContextSpec = ContextSpec()
    """What is done about prompts that are too long."""
    dedupe: Dedupe = "auto"
    """Whether identical requests share one answer; auto: only at temperature 0, with a seed, or for embeddings."""
    cache: Cache = False
    """Whether answers are reused across jobs: true, or the path of a cache."""
    prompt_cache: Literal["auto", "off", "5m", "1h"] = "auto"
    """How long the provider keeps shared beginnings of prompts."""
    on_change: Literal["ask", "rerun", "keep", "refuse"] = "ask"
    """What happens to ok answers whose request changed; ask: on a terminal, otherwise refuse."""
    max_failed: MaxFailedKey | None = None
    """A count or a percentage of failed rows that still is success; clearly above it the run stops early."""
    keep_bodies: Literal["all", "failed", "none"] = "all"
    """Which of the provider's bodies the store keeps."""
    durability: Literal["full", "normal"] = "full"
    """full survives a power cut, normal a kill -9."""
    compress: Flag = False
    """Whether stored bodies are compressed."""
    store: Expandable | None = None
    """Path of the store; default: <name>.db beside the spec. `${VAR}` is expanded."""
    results: Expandable | None = None
    """Path of the results, the extension picks the format; `none` writes none. Default: <name>.results.jsonl beside the spec. `${VAR}` is expanded."""

    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="before")
    @classmethod
    def _single_route(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("routes") in (None, []) and isinstance(data.get("models"), dict) and len(data["models"]) == 1:
            return {**data, "routes": [{"use": list(data["models"])}]}
        return data

    @model_validator(mode="after")
    def _named_hosts(self) -> JobSpec:
        for name, model in self.models.items():
            if model.host is not None:
                host = named(model.host, self.hosts)
                if host is None:
                    wrong_at(("models", name, "host"), f"no host is called {model.host!r}; there are: {', '.join([*self.hosts, *BY_NAME])}")
                if model.base_url is None and host.base_url is None:
                    wrong_at(("models", name, "host"), f"{model.host} can be anywhere: give its `base_url`, e.g. http://localhost:8000/v1")
                self.models[name] = model.at(host)
        return self

    @model_validator(mode="after")
    def _own_prices(self) -> JobSpec:
        for name, model in self.models.items():
            price = (self.prices or {}).get(model.model)
            if model.price is None and price is not None:
                # Before anybody has seen it.
                self.models[name] = model.model_copy(update={"price": price})
        return self

    @property
    def path(self) -> Path | None:
        """The spec's file; None for a job built in code."""
        return self._source.path

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self._source.folder

    @property
    def toolkit(self) -> Toolkit | None:
        """The program's functions that models may call; None without."""
        return self._source.toolkit

    @property
    def text(self) -> str:
        """The spec as written, `${VAR}` unexpanded; canonical JSON for a job built in code."""
        return self._source.text

    @property
    def extended_text(self) -> str | None:
        """What the spec says together with what it extends, as JSON; None when it extends nothing."""
        return json.canonical(self._source.written.data).decode() if self.extends is not None else None

    @property
    def overrides_text(self) -> str | None:
        """What `--set` and the like changed, as JSON of dotted keys; None when nothing."""
        return json.text(dict(self._source.changes)) if self._source.changes else None

    def store_path(self, environ: Mapping[str, str]) -> Path:
        """The store's path, absolute when the folder is."""
        return self.folder / (expand(self.store, environ, key="store") if self.store is not None else f"{self.name}.db")

    def results_path(self, environ: Mapping[str, str]) -> Path | None:
        """The results' path; None when none are to be written."""
        if self.results == "none":
            return None
        return self.folder / (expand(self.results, environ, key="results") if self.results is not None else f"{self.name}.results.jsonl")

    def own_files(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """What runs of this job write, also with --simulate: no glob of the input means these."""
        paths = [self.store_path(environ), self.results_path(environ), *(self.folder / f"{self.name}{kind}.results.jsonl" for kind in ("", ".sim"))]
        return tuple(path for path in paths if path is not None)

    def input_patterns(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Paths and globs of the input, relative ones put under the folder; `-` (stdin) stays. Empty without an input."""
        if self.input is None:
            return ()
        return tuple(self._pattern(expand(text, environ, key="input")) for text in self.input.paths or self.input.files or ())

    @property
    def rows_are_files(self) -> bool:
        """Whether each input file is one row."""
        return self.input is not None and self.input.files is not None

    @property
    def input_rules(self) -> Mapping[str, Any]:
        """`where` and `join` as written, before any change: they hold for another input as well."""
        given = self._source.written.data.get("input")
        return {key: given[key] for key in ("where", "join") if given.get(key) is not None} if isinstance(given, dict) else {}

    def join_paths(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Paths of the jobs under `input.join`, relative ones put under the folder."""
        return tuple(self._pattern(expand(text, environ, key="input")) for text in self.input.join.values()) if self.input is not None else ()

    def with_changes(self, **dotted: Any) -> JobSpec:
        """This spec with other values, e.g. `with_changes(**{"budget.usd": 5})`; checked like a new one. SpecError for a bad key or value.

        Dollars of a path from the command line are escaped by `literal`, and such a path is made absolute by who knows the current folder.
        """
        from batchllm.spec.assemble import assemble

        return assemble(self._source, changes=dotted, label=None)

    def with_toolkit(self, toolkit: Toolkit, declarations: list[Any]) -> JobSpec:
        """This spec with functions that models may call; `declarations` is its new `request.tools`."""
        from batchllm.spec.assemble import assemble

        return assemble(replace(self._source, toolkit=toolkit), changes={"request.tools": declarations}, label=None)

    def placed(self, problem: Problem) -> Problem:
        """A problem that was found later, with line and column of the key it names; one that isn't about a key of this spec stays as it is."""
        own = str(self.path) if self.path is not None else None
        written = self._source.written
        if problem.path is None or problem.line is not None or problem.file not in {None, own, written.file}:
            return problem
        steps = tuple(int(step) if step.isdecimal() else step for step in problem.path.replace("[", ".").replace("]", "").split("."))
        if steps[0] not in type(self).model_fields:
            return problem
        changed, _ = apply(written, self._source.changes, label="--set")
        (found,) = locate([Finding(path=steps, message=problem.message)], changed)
        return replace(found, path=problem.path)

    def simulated(self) -> JobSpec:
        """This job with every model simulated (`run --simulate`): model ids, prices, limits and seeds stay; store and results become `<name>.sim.*`. Changes come first: they start from the spec as written."""
        models = {
            name: spec.model_copy(
                update={
                    "provider": "simulated",
                    "base_url": None,
                    "api_key_env": None,
                    "api_key_command": None,
                    "api_key_file": None,
                    "headers": {},
                    "limits": spec.all_limits(),
                }
            )
            for name, spec in self.models.items()
        }
        results = self.results if self.results == "none" else literal(f"{self.name}.sim.results.jsonl")
        return self.model_copy(update={"models": models, "store": literal(f"{self.name}.sim.db"), "results": results})

    def _pattern(self, text: str) -> str:
        if text == "-" or Path(text).is_absolute():
            return text
        # A bracket in the folder's name must not be read as a glob; a plain path stays readable.
        folder = glob.escape(str(self.folder)) if glob.has_magic(text) else str(self.folder)
        return str(Path(folder) / text)


def built(data: Mapping[str, Any], source: Source) -> JobSpec:
    """The spec of complete, already changed data; pydantic's ValidationError says what is wrong."""
    job = JobSpec.model_validate(data, context={"folder": source.folder})
    job._source = source  # noqa: SLF001 - set once, here, before anyone sees it
    return job
