"""What types alone can't say: names that must exist, keys that need each other, parameters that must not be set where they are.

It reads the data as written, so that its findings come together with the type errors and not after they are mended. Values of the wrong type are passed
over here: validation names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from batchllm.spec.findings import Finding, Path, did_you_mean, found
from batchllm.spec.model import HOSTS, base_url_problem, is_own_host
from batchllm.spec.values import body_problem, parameter_problem
from batchllm.spec.variables import has_variables

_RESULTS = (".jsonl", ".csv")


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
    yield from _parameters(("request",), data.get("request"))
    yield from _prompt(data.get("prompt"))
    yield from _results(data.get("results"))


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
        for key in ("base_url", "api_key_env", "headers"):
            if model.get(key):
                message = "the simulated provider runs in this process and sends nothing; for a simulator at a URL use `provider: openai-compatible`"
                yield Finding(path=(*path, key), at="key", message=message)
    elif model.get("simulator") is not None:
        yield Finding(path=(*path, "simulator"), at="key", message="only with `provider: simulated`")
    if provider == "openai-compatible" and base_url is None:
        yield Finding(path=(*path, "base_url"), at="missing", message="`openai-compatible` needs the server's address, e.g. http://localhost:8000/v1")
    elif isinstance(provider, str) and isinstance(base_url, str) and base_url_problem(base_url) is None:
        yield from _key(path, model, provider, base_url)
    yield from _parameters((*path, "request"), model.get("request"))
    body = model.get("body")
    if isinstance(body, dict):
        for key, value in body.items():
            problem = body_problem(key, value)
            if problem:
                yield Finding(path=(*path, "body", key), at="key", message=problem)
    price = model.get("price")
    if isinstance(price, dict) and data.get("endpoint") in (None, "chat"):
        for key in ("input", "output"):
            if price.get(key) is None and any(value is not None for value in price.values()):
                yield Finding(path=(*path, "price", key), at="missing", message="a price needs both `input` and `output` (0 for free)")


def _key(path: Path, model: Mapping[str, Any], provider: str, base_url: str) -> Iterator[Finding]:
    if model.get("api_key_env") is not None or provider not in {*HOSTS, "openai-compatible"} or is_own_host(provider, base_url):
        return
    whose = (
        f"is not {HOSTS[provider].base_url.split('/')[2]} over https, so the usual key is not sent there" if provider in HOSTS else "may need a key"
    )
    yield found(
        (*path, "base_url"),
        f"this host {whose}: add `api_key_env: NAME` with the environment variable that holds its key, or `api_key_env: none` to send no key",
    )


def _parameters(path: Path, request: Any) -> Iterator[Finding]:
    if not isinstance(request, dict):
        return
    for key, value in request.items():
        problem = parameter_problem(key, value)
        if problem:
            yield found((*path, key), problem)


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


def _results(results: Any) -> Iterator[Finding]:
    if not isinstance(results, str) or results == "none" or has_variables(results):
        return
    ending = PurePosixPath(results).suffix.lower()
    if ending not in {*_RESULTS, ""}:
        yield found(("results",), f"the ending picks the format: {' or '.join(_RESULTS)}, got {ending!r}")
