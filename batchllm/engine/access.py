"""How a job's models are reached - base URL, headers, keys - checked before anything is opened or sent, all problems at once (exit 2).

What is secret stays in here: a base URL or a header may hold a variable's value, and a server may echo any of it. `scrubber` knows them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Endpoint
from batchllm.core.secret import Scrubber, Secret
from batchllm.engine.keys import NoKey, read_keys
from batchllm.providers.codec import Codec
from batchllm.providers.codecs import Unserved, codec_for
from batchllm.spec import JobSpec, ModelSpec, variables
from batchllm.store import Deployment

_NO_HOST = "http://simulator.invalid/v1"
"""Of a simulated model, which nobody connects to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a model is reached: what is secret about it stays in here."""

    base_url: str
    key: Secret | None
    headers: Mapping[str, Secret]
    variable: str = ""
    """The variable that holds the key, where there are several."""
    others: tuple[Access, ...] = ()
    """By the further keys of the same model."""

    @property
    def each(self) -> tuple[Access, ...]:
        """By each of its keys."""
        return (self, *self.others)

    def codec(self, model: ModelSpec, endpoint: Endpoint) -> Codec:
        """The codec of a model for a kind of request. Raises Unserved."""
        return codec_for(
            provider=model.provider,
            endpoint=endpoint,
            base_url=self.base_url or _NO_HOST,
            model=model.model,
            api_key=self.key,
            headers=self.headers,
            host=model.quirks,
        )


def reachable(spec: JobSpec) -> list[str]:
    """Models that a row can end at: those of the routes, and all of them where rows may pin one."""
    if spec.overrides.model is not None or spec.prompt is None:
        return list(spec.models)
    used = {name for route in spec.routes for name in route.use}
    used |= set(spec.output.on_invalid.escalate or ()) if spec.output.on_invalid is not None else set()
    return [name for name in spec.models if name in used]


def check_access(spec: JobSpec, environ: Mapping[str, str], names: Iterable[str]) -> dict[str, Access]:
    """Keys, base URLs and headers of these models; commands that print a key run here. Raises SpecError naming each missing variable."""
    problems: list[Problem] = []
    access: dict[str, Access] = {}
    ran: dict[str, str] = {}
    file = str(spec.path) if spec.path is not None else None
    for name in names:
        model = spec.models[name]
        path = f"models.{name}"
        try:
            bare = Access(base_url=model.api_base(environ), key=None, headers=model.header_values(environ))
        except SpecError as error:
            problems += [
                Problem(file=file, path=f"{path}.{problem.path}" if problem.path else path, message=problem.message) for problem in error.problems
            ]
            continue
        keys: dict[str, Secret | None] = {"": None}
        try:
            keys = read_keys(model, environ, spec.folder, ran)
        except NoKey as error:
            problems.append(Problem(file=file, path=path, message=str(error)))
        try:
            bare.codec(model, spec.endpoint)
        except Unserved as error:
            problems.append(Problem(file=file, path=path, message=str(error)))
        ways = [replace(bare, key=key, variable=variable if len(keys) > 1 else "") for variable, key in keys.items()]
        access[name] = replace(ways[0], others=tuple(ways[1:]))
    if problems:
        raise SpecError(problems)
    return access


def access_without_keys(spec: JobSpec, environ: Mapping[str, str], names: Iterable[str]) -> dict[str, Access]:
    """Base URLs of these models, without asking for any key; one whose variables aren't set stays as it is written. Raises SpecError for a wire that doesn't exist."""
    access: dict[str, Access] = {}
    problems: list[Problem] = []
    for name in names:
        model = spec.models[name]
        try:
            base = model.api_base(environ)
        except SpecError:
            base = model.base_url or ""
        access[name] = Access(base_url=base, key=None, headers={})
        try:
            access[name].codec(model, spec.endpoint)
        except Unserved as error:
            problems.append(Problem(file=str(spec.path) if spec.path is not None else None, path=f"models.{name}", message=str(error)))
    if problems:
        raise SpecError(problems)
    return access


_TOKEN_LENGTH = 12
"""Characters of a part of a URL's path that may be a token; words such as `openai` and `deployments` are shorter."""


def scrubber(access: Mapping[str, Access], spec: JobSpec, environ: Mapping[str, str]) -> Scrubber:
    """Knows every secret of the run: keys, and what variables filled into headers and base URLs."""
    return scrubber_of(((spec.models[name], reach) for name, reach in access.items()), environ)


def scrubber_of(reached: Iterable[tuple[ModelSpec, Access]], environ: Mapping[str, str]) -> Scrubber:
    """The same for models of no job."""
    secrets: list[Secret | str] = []
    mentions: list[str] = []
    for model, reach in reached:
        secrets += [way.key for way in reach.each if way.key is not None]
        written = model.headers
        for header, value in reach.headers.items():
            if value.reveal() != written[header]:
                secrets.append(value)
                # `Authorization: Bearer ${KEY}`: a server may echo the key alone.
                secrets += value.reveal().split()
        base = model.base_url
        if base is not None and "${" in base:
            secrets.append(reach.base_url)
            parts = urlsplit(reach.base_url)
            filled = [value for value in variables.values(base, environ) if value]
            # What messages of the network name, and what the variables held.
            mentions += [parts.netloc, parts.hostname or "", reach.base_url.partition("://")[2], *filled]
            # A path may hold a token, and servers echo paths without the host.
            tokens = [part for part in parts.path.split("/") if len(part) >= _TOKEN_LENGTH]
            secrets += [part for part in tokens if any(part in value or value in part for value in filled)]
    return Scrubber(secrets, mentions=mentions)


def deployment_of(name: str, model: ModelSpec) -> Deployment:
    """Who answers, as the store knows it: with the base URL as written."""
    return Deployment(name=name, provider=model.provider, base_url=model.base_url or "", model=model.model)
