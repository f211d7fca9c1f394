"""What types alone can't say: names that must exist, keys that need each other, parameters that must not be set where they are.

It reads the data as written, so that its findings come together with the type errors and not after they are mended. Values of the wrong type are passed
over here: validation names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

from batchllm.spec.findings import Finding, Path, did_you_mean, found
from batchllm.spec.hosts import host_at
from batchllm.spec.model import HOSTS, base_url_problem, is_own_host
from batchllm.spec.slips import slip
from batchllm.spec.tools import tool_problems
from batchllm.spec.values import body_problem, parameter_problem
from batchllm.spec.variables import has_variables

KEY_SOURCES = ("api_key_env", "api_key_command", "api_key_file")
_RESULTS = (".jsonl", ".csv", ".parquet", ".npy")


def check(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong with the meaning of the data."""
    models = data.get("models")
    models = models if isinstance(models, dict) else {}
    if data.get("models") == {}:
        yield found(("models",), "needs at least one model")
    for name, model in models.items():
        yield from _model_name(name)
        if isinstance(model, dict):
            yield from _model(("models", name), model, data)
    yield from _routes(data, models)
    yield from _groups(data, models)
    yield from _output(data.get("output"), data.get("endpoint"), models)
    yield from _samples(data)
    yield from _context(data.get("context"), data.get("endpoint"))
    yield from _parameters(("request",), data.get("request"))
    yield from _prompt(data.get("prompt"))
    yield from _results(data.get("results"), data.get("endpoint"))
    yield from _webhook(data.get("budget"))


def _model_name(name: str) -> Iterator[Finding]:
    path: Path = ("models", name)
    if "." in name:
        yield Finding(
            path=path, at="key", message=f"a model's name can't hold a dot, since `--set` separates keys by dots; call it `{name.replace('.', '-')}`"
        )
    elif not name or name != name.strip() or not name.isprintable():
        yield Finding(path=path, at="key", message="a model's name must be visible text without spaces at its ends")


def _model(path: Path, model: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Finding]:
    provider, base_url = model.get("provider"), model.get("base_url")
    if provider == "simulated":
        for key in ("base_url", *KEY_SOURCES, "headers"):
            if model.get(key):
                message = "the simulated provider runs in this process and sends nothing; for a simulator at a URL use `provider: openai-compatible`"
                yield Finding(path=(*path, key), at="key", message=message)
    elif model.get("simulator") is not None:
        yield Finding(path=(*path, "simulator"), at="key", message="only with `provider: simulated`")
    host = model.get("host")
    if host is not None and isinstance(provider, str) and provider != "openai-compatible":
        yield Finding(path=(*path, "host"), at="key", message="only with `provider: openai-compatible`")
    if provider == "openai-compatible" and base_url is None and host is None:
        yield Finding(path=(*path, "base_url"), at="missing", message="`openai-compatible` needs the server's address, e.g. http://localhost:8000/v1")
    elif isinstance(provider, str) and isinstance(base_url, str) and base_url_problem(base_url) is None:
        yield from _key(path, model, provider, base_url)
    sources = [key for key in KEY_SOURCES if model.get(key) is not None]
    for key in sources[1:]:
        yield Finding(path=(*path, key), at="key", message=f"the key comes from one place: give either `{sources[0]}` or `{key}`")
    yield from _parameters((*path, "request"), model.get("request"))
    body = model.get("body")
    if isinstance(body, dict):
        for key, value in body.items():
            problem = body_problem(key, value)
            if problem:
                yield Finding(path=(*path, "body", key), at="key", message=problem)
    price = model.get("price")
    if provider == "anthropic" and isinstance(price, dict) and price.get("cache_write") is None and data.get("prompt_cache") in ("5m", "1h"):
        yield Finding(path=(*path, "price"), at="key", message="`prompt_cache` writes to the provider's cache: add `cache_write`, what that costs")
    if isinstance(price, dict) and data.get("endpoint") in (None, "chat"):
        for key in ("input", "output"):
            if price.get(key) is None and any(value is not None for value in price.values()):
                yield Finding(path=(*path, "price", key), at="missing", message="a price needs both `input` and `output` (0 for free)")


def _key(path: Path, model: Mapping[str, Any], provider: str, base_url: str) -> Iterator[Finding]:
    if any(model.get(key) is not None for key in KEY_SOURCES) or provider not in {*HOSTS, "openai-compatible"} or is_own_host(provider, base_url):
        return
    if provider in HOSTS and HOSTS[provider].key_env is None:
        return
    whose = (
        f"is not {HOSTS[provider].base_url.split('/')[2]} over https, so the usual key is not sent there" if provider in HOSTS else "may need a key"
    )
    known = host_at(base_url)
    name = known.key_env if known is not None and known.key_env is not None else "NAME"
    yield found(
        (*path, "base_url"),
        f"this host {whose}: add `api_key_env: {name}` with the environment variable that holds its key, or `api_key_env: none` to send no key",
    )


def _parameters(path: Path, request: Any) -> Iterator[Finding]:
    if not isinstance(request, dict):
        return
    for key, value in request.items():
        problem = parameter_problem(key, value)
        misspelt = slip(key) if isinstance(key, str) else None
        if problem:
            yield found((*path, key), problem)
        elif misspelt is not None:
            yield Finding(path=(*path, key), at="key", message=misspelt)
    for inside, problem in tool_problems(request):
        yield found((*path, *inside), problem)


def _routes(data: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Finding]:
    routes = data.get("routes")
    if len(models) > 1 and routes in (None, []):
        names = ", ".join(models)
        yield Finding(
            path=("routes",), at="missing", message=f"with several models `routes` says which rows go where, e.g. `routes: [{{use: [{names}]}}]`"
        )
    for index, rule in enumerate(routes if isinstance(routes, list) else []):
        if isinstance(rule, dict):
            yield from _names(("routes", index, "use"), rule.get("use"), models)


def _output(output: Any, endpoint: Any, models: Mapping[str, Any]) -> Iterator[Finding]:
    if not isinstance(output, dict):
        return
    given = [key for key in ("schema", "choices", "check") if output.get(key) is not None]
    on_invalid = output.get("on_invalid")
    if endpoint == "embeddings":
        for key in (*given, *(["on_invalid"] if on_invalid is not None else [])):
            yield Finding(path=("output", key), at="key", message="an embedding is a list of numbers: there is nothing to check; leave this out")
    if {"schema", "choices"} <= set(given):
        yield Finding(path=("output", "choices"), at="key", message="give either `schema` or `choices`, not both (a schema may say `enum`)")
    if isinstance(on_invalid, dict):
        yield from _names(("output", "on_invalid", "escalate"), on_invalid.get("escalate"), models)
        for key in ("retries", "repair"):
            if not given and on_invalid.get(key) is not None:
                message = "without `schema`, `choices` or `check` no answer is invalid; give one of them, or leave this out"
                yield Finding(path=("output", "on_invalid", key), at="key", message=message)


def _samples(data: Mapping[str, Any]) -> Iterator[Finding]:
    output = data.get("output")
    if data.get("samples") is None:
        if isinstance(output, dict) and output.get("vote") is not None:
            yield Finding(path=("output", "vote"), at="key", message="there is nothing to vote on with one answer per row; add e.g. `samples: 5`")
    elif data.get("endpoint") == "embeddings":
        yield Finding(path=("samples",), at="key", message="an embedding is the same each time; leave this out")
    elif data.get("cache") not in (None, False):
        yield Finding(path=("cache",), at="key", message="with `samples` answers are to be independent, not old ones: give one of the two")


def _context(context: Any, endpoint: Any) -> Iterator[Finding]:
    if isinstance(context, dict) and context.get("trim") not in (None, "error") and endpoint in ("embeddings", "completions"):
        yield Finding(
            path=("context", "trim"), at="key", message=f"with `endpoint: {endpoint}` a prompt is one text: there are no turns to leave out"
        )


def _groups(data: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Finding]:
    groups = data.get("limit_groups")
    for name, group in groups.items() if isinstance(groups, dict) else ():
        if isinstance(group, dict):
            yield from _names(("limit_groups", name, "models"), group.get("models"), models)


def _names(path: Path, names: Any, models: Mapping[str, Any]) -> Iterator[Finding]:
    items: Iterable[tuple[Path, Any]] = [(path, names)]
    if isinstance(names, list | dict):
        items = [
            ((*path, key), key if isinstance(names, dict) else name) for key, name in (names.items() if isinstance(names, dict) else enumerate(names))
        ]
    for place, name in items:
        if isinstance(name, str) and name and name not in models:
            hint = did_you_mean(name, models) or (f"; there are: {', '.join(models)}" if models else "")
            yield found(place, f"no model is called {name!r}{hint}")


def _prompt(prompt: Any) -> Iterator[Finding]:
    if not isinstance(prompt, dict):
        return
    keys = {"system", "user", "file", "messages"}
    given = {key for key in keys if prompt.get(key) is not None}
    if "messages" in given and len(given) > 1:
        yield found(("prompt",), "give either `messages` or `system` and `user`, not both")
    elif {"user", "file"} <= given:
        yield found(("prompt",), "give either `user` or `file`, not both")
    elif not given & {"user", "file", "messages"} and not set(prompt) - keys:
        yield Finding(path=("prompt", "user"), at="missing", message="a prompt needs `user` (or `messages`)")


def _webhook(budget: Any) -> Iterator[Finding]:
    url = budget.get("alert_webhook") if isinstance(budget, dict) else None
    if isinstance(url, str) and not url.startswith(("http://", "https://", "${")):
        yield found(("budget", "alert_webhook"), "expected a URL that begins with https:// (or http://)")


def _results(results: Any, endpoint: Any) -> Iterator[Finding]:
    if not isinstance(results, str) or results == "none" or has_variables(results):
        return
    ending = PurePosixPath(results).suffix.lower()
    if ending not in {*_RESULTS, ""}:
        yield found(("results",), f"the ending picks the format: {' or '.join(_RESULTS)}, got {ending!r}")
    if ending == ".parquet" and find_spec("pyarrow") is None:
        yield found(("results",), "Parquet needs pyarrow, which isn't installed: pip install 'batchllm[parquet]'")
    if ending == ".npy" and endpoint != "embeddings":
        yield found(("results",), "an .npy file holds vectors: it goes with `endpoint: embeddings`; use .jsonl or .csv")
