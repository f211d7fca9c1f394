"""One entry of `models`: a named deployment, and who may see which key.

A provider's usual key goes to its own host over https and nowhere else; any other host needs an explicit `api_key_env` (`none`: send no key).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from batchllm.core.errors import Problem, SpecError
from batchllm.core.secret import Secret
from batchllm.spec.hosts import CompatibleHost
from batchllm.spec.parts import Limits, LimitsSpec, Price, SimulatorSpec
from batchllm.spec.values import REQUEST_PARAMETERS, Count, Part, Text, wrong
from batchllm.spec.variables import expand, has_variables, problem_with

Provider = Literal["openai", "anthropic", "gemini", "ollama", "openai-compatible", "simulated"]
SIMULATED_MODEL = "sim-small"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A provider's own address and the variable that usually holds its key."""

    base_url: str
    key_env: str | None
    """None: it needs no key, wherever it is."""


HOSTS: Mapping[str, Host] = {
    "openai": Host(base_url="https://api.openai.com/v1", key_env="OPENAI_API_KEY"),
    "anthropic": Host(base_url="https://api.anthropic.com", key_env="ANTHROPIC_API_KEY"),
    "gemini": Host(base_url="https://generativelanguage.googleapis.com/v1beta", key_env="GEMINI_API_KEY"),
    "ollama": Host(base_url="http://127.0.0.1:11434", key_env=None),
}
"""Providers with a host of their own."""


_URL_PATTERN = r"^(https?://|[^?#]*\$\{)[^?#\s]*$"


def base_url_problem(url: str) -> str | None:
    """What is wrong with a base URL, as far as it can be told before its variables are filled in."""
    return problem_with(url) or (None if has_variables(url) else url_problem(url))


def url_problem(url: str) -> str | None:
    """What is wrong with a base URL."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "not a URL"
    if parts.username is not None or parts.password is not None:
        return "a URL must not hold a user or password; put the key in `api_key_env` or in `headers`"
    if parts.scheme not in {"http", "https"} or not host or any(character.isspace() for character in url):
        return f"expected an http or https URL such as https://host/v1, got {url!r}"
    if parts.query or parts.fragment:
        return "a base URL ends with its path; it can't have `?` or `#`"
    return None


def is_own_host(provider: str, base_url: str | None) -> bool:
    """Whether requests go to the provider's own host, over https. A URL with variables in it is never taken for it."""
    own = HOSTS.get(provider)
    if own is None:
        return False
    if base_url is None:
        return True
    if has_variables(base_url):
        return False
    try:
        parts = urlsplit(base_url)
        return parts.scheme == "https" and parts.hostname == urlsplit(own.base_url).hostname and parts.port in {None, 443}
    except ValueError:
        return False


def _base_url(value: str) -> str:
    problem = base_url_problem(value)
    return wrong(problem) if problem else value


_HEADER_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def header_name_problem(name: str) -> str | None:
    """What is wrong with the name of an HTTP header."""
    return None if name and set(name) <= _HEADER_CHARACTERS else f"{name!r} is no header name"


def _headers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for name, text in value.items():
        if name_problem := header_name_problem(name):
            wrong(name_problem)
        if isinstance(text, str):
            problem = "must be one line" if "\n" in text.strip() or "\r" in text.strip() else problem_with(text)
            if problem:
                wrong(f"{name}: {problem}")
    return {name: text for name, text in value.items() if text is not None}


def _key_env(value: Any) -> str | tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or any(not (isinstance(name, str) and name.isascii() and name.isidentifier()) for name in names):
        # A key pasted here by mistake must not appear in the message.
        wrong("expected the name of an environment variable, such as OPENAI_API_KEY (never the key itself), or `none`")
    if not names:
        wrong("an empty list names no key; `none` sends none")
    if len(names) > 1 and "none" in names:
        wrong("`none` among several keys: a model sends a key or none")
    if len(set(names)) < len(names):
        wrong("the same variable twice: each key is used at its own limits, so name it once")
    return names[0] if len(names) == 1 else tuple(names)


_REQUEST_SCHEMA = {
    "type": "object",
    "properties": {
        # A null takes a parameter back that the spec's own request sets.
        name: {**schema, "type": [*(schema["type"] if isinstance(schema["type"], list) else [schema["type"]]), "null"]}
        for name, schema in REQUEST_PARAMETERS.items()
    },
    "additionalProperties": True,
}
Request = Annotated[dict[str, Any], WithJsonSchema(_REQUEST_SCHEMA)]
"""OpenAI chat-completions parameters. Their values are checked in `check`, where their places are known."""


_Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
KeyEnv = Annotated[
    str | tuple[str, ...],
    BeforeValidator(
        _key_env, json_schema_input_type=_Variable | Annotated[list[_Variable], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    ),
]
"""The variable that holds a key, or several variables with a key each."""


class ModelSpec(Part):
    """A named deployment: provider, model id, endpoint, limits and prices."""

    provider: Provider
    """Whose wire it speaks."""
    model: Text
    """The provider's model id; `simulated` has a default."""
    base_url: Annotated[str, AfterValidator(_base_url), Field(json_schema_extra={"pattern": _URL_PATTERN})] | None = None
    """Default: the provider's own. `${VAR}` is expanded. Another host than the provider's own needs an explicit `api_key_env`."""
    host: Text | None = None
    """With openai-compatible: whose accent of OpenAI's wire it speaks, such as vllm, azure or groq, or a name under the spec's `hosts`; default: told by `base_url`."""
    api_key_env: KeyEnv | None = None
    """Name of the environment variable that holds the key, or `none` to send no key; default: the provider's usual one, sent to its own host only. A list of
    variables is a pool of keys: rows go to whichever is free, each key has the model's `limits` for itself, and one that is refused for good is out while the others go on."""
    api_key_command: Text | None = None
    """A command that prints the key, such as `pass show openai`: run once before anything is sent, without a shell; instead of `api_key_env`."""
    api_key_file: Text | None = None
    """A file that holds the key and nothing else, relative to the spec; instead of `api_key_env`."""
    headers: Annotated[dict[str, str], BeforeValidator(_headers, json_schema_input_type=dict[str, str | None])] = Field(default_factory=dict)
    """Further HTTP headers; `${VAR}` is expanded."""
    request: Request = Field(default_factory=dict)
    """Parameters for this model; they merge over the spec's, and a row's own win over both."""
    body: dict[str, Any] = Field(default_factory=dict)
    """The provider's own parameters, merged raw into the request's body."""
    limits: Limits = LimitsSpec()
    """Rate limits; left out they are found, `none` means there are none."""
    price: Price | None = None
    """USD per million tokens; default: the price book."""
    context_window: Count | None = None
    """Tokens of the longest prompt (with its answer), for `context` and for rows that are too long; default: as documented of the model."""
    batch: Literal["never", "auto", "only"] = "never"
    """Whether the provider's Batch API is used."""
    simulator: SimulatorSpec = SimulatorSpec()
    """What the simulated provider does; with `provider: simulated` only."""

    _quirks: CompatibleHost | None = PrivateAttr(default=None)

    @property
    def quirks(self) -> CompatibleHost | None:
        """What `host` names; None without it."""
        return self._quirks

    def at(self, host: CompatibleHost) -> ModelSpec:
        """The same model with this host's quirks, and with its address and its key's variable where the model has no address of its own."""
        update: dict[str, Any] = {}
        if self.base_url is None and host.base_url is not None:
            update["base_url"] = host.base_url
            if self.api_key_env is None and self.api_key_command is None and self.api_key_file is None:
                update["api_key_env"] = host.key_env or "none"
        model = self.model_copy(update=update)
        model._quirks = host  # noqa: SLF001 - its own
        return model

    @model_validator(mode="before")
    @classmethod
    def _simulated_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("provider") == "simulated" and data.get("model") is None:
            return {**data, "model": SIMULATED_MODEL}
        return data

    def key_envs(self) -> tuple[str, ...]:
        """The environment variables whose values are sent as the key; none: no key is sent, or a command or file has it."""
        if self.provider == "simulated" or self.api_key_env == "none" or self.api_key_command is not None or self.api_key_file is not None:
            return ()
        if self.api_key_env is not None:
            return (self.api_key_env,) if isinstance(self.api_key_env, str) else self.api_key_env
        usual = HOSTS[self.provider].key_env if is_own_host(self.provider, self.base_url) else None
        return (usual,) if usual is not None else ()

    def all_limits(self) -> LimitsSpec:
        """The limits of all its keys together: each key has them for itself."""
        return self.limits.times(max(1, len(self.key_envs())))

    def api_base(self, environ: Mapping[str, str]) -> str:
        """The base URL, variables filled in, without a slash at its end; empty for the simulated provider. SpecError for an unset variable or no URL."""
        if self.base_url is None:
            return HOSTS[self.provider].base_url if self.provider in HOSTS else ""
        url = expand(self.base_url, environ, key="base_url").strip()
        problem = url_problem(url)
        if problem is not None:
            # What was filled in may be secret, so the message shows the URL as written.
            words = problem.split(", got ")[0]
            raise SpecError(Problem(path="base_url", message=f"{self.base_url!r} once its variables are filled in: {words}"))
        return url.rstrip("/")

    def header_values(self, environ: Mapping[str, str]) -> dict[str, Secret]:
        """The headers with their variables filled in; secret, since they may well hold keys. SpecError for an unset variable or a value of several lines."""
        result = {}
        for name, text in self.headers.items():
            value = expand(text, environ, key=f"headers.{name}").strip()
            if "\n" in value or "\r" in value:
                raise SpecError(Problem(path=f"headers.{name}", message="its value has several lines once its variables are filled in"))
            result[name] = Secret(value)
        return result
