"""`map`: a list in, a list of results out, in the same order. A job like any other, built from the call's arguments.

Items become rows that are known by their content, so that with a `store` a second call asks only what is new, wherever in the list it stands.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchllm.api.running import blocking, order
from batchllm.api.tools import AnyTools
from batchllm.api.words import in_python
from batchllm.core.errors import Problem, SpecError, Stopped
from batchllm.core.nouns import Result
from batchllm.engine import Summary
from batchllm.rows.read import from_records
from batchllm.spec import JobSpec, build, literal
from batchllm.store.read import StoreReader
from batchllm.store.stored import result_at

_NAME = "map"
_MODEL = "model"


def map_items(
    items: Iterable[Any],
    model: str | Mapping[str, Any],
    *,
    prompt: str | Mapping[str, Any] | None = None,
    schema: Mapping[str, Any] | str | type[Any] | None = None,
    budget_usd: float | str | None = None,
    store: str | Path | None = None,
    request: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | str | None = None,
    concurrency: int | None = None,
    tools: AnyTools | None = None,
) -> list[Result]:
    """Asks a model about each item and returns the results in the items' order.

        results = batchllm.map(["Paris", "Rome"], model="openai:gpt-6-luna", prompt="Which country is {{ text }} in?", budget_usd=2)
        print([result.output for result in results])

    `items`: texts, or dicts. Without a `prompt` a text is the user's message, and a dict is a row that carries its own `prompt` or `messages`. In a prompt
    (a template, or {system, user}) a text is `{{ text }}` or `{{ item }}`, and a dict's fields are names. `model`: "provider:model", "simulated", or the keys of
    a model in a spec, such as {"provider": "openai-compatible", "base_url": ..., "model": ...}. `schema`: a JSON Schema, the path of one, or a
    pydantic model; `result.parsed` then holds the value, `result.parsed_as(Model)` an instance. `budget_usd` is a hard cap. `request`: parameters such
    as {"max_tokens": 100}; `limits` and `concurrency` as in a spec. `store`: a path where answers are kept, so that a second call goes on where the first one
    ended (its budget counts over the store's whole life); None: a temporary one. `tools`: functions that the model may call, or `batchllm.Tools(...)` of them.

    A row that fails is a Result with an `error`. Works inside a running loop and in threads. Raises Stopped when the run ends before every item has a
    result (`.results` has None for those without, `.summary` says why), SpecError when nothing could be sent, StoreError.
    """
    rows = [_record(item, templated=prompt is not None) for item in items]
    folder = Path(tempfile.mkdtemp(prefix="batchllm-")) if store is None else None
    try:
        path = folder / f"{_NAME}.db" if folder is not None else Path.cwd() / Path(store or "")
        spec = _spec(
            model,
            path,
            prompt=prompt,
            schema=schema,
            budget_usd=budget_usd,
            request=request,
            limits=limits,
            concurrency=concurrency,
            lasting=folder is None,
        )
        summary = blocking(order(spec, rows, tools=tools))
        found = _collected(path, rows)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return _whole(found, summary, lasting=folder is None)


def _spec(model: str | Mapping[str, Any], path: Path, *, lasting: bool, **given: Any) -> JobSpec:
    limits, schema = given["limits"], given["schema"]
    keys: dict[str, Any] = {
        "name": _NAME,
        "models": {_MODEL: {**_model(model), **({"limits": limits} if limits is not None else {})}},
        "prompt": given["prompt"],
        "request": given["request"],
        "concurrency": given["concurrency"],
        "budget": {"usd": given["budget_usd"]},
        "output": {"schema": schema} if schema is not None else None,
        "store": literal(str(path)),
        "results": "none",
    }
    # A temporary store outlives no power cut anyway.
    keys |= {"on_change": "rerun"} if lasting else {"durability": "normal", "keep_bodies": "none"}
    return build({key: value for key, value in keys.items() if value is not None})


def _model(model: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, str):
        raise SpecError(Problem(file="model", message=f"expected 'provider:model', 'simulated' or the keys of a model, got {type(model).__name__}"))
    provider, colon, name = model.partition(":")
    if model == "simulated":
        return {"provider": "simulated"}
    if not colon or not provider or not name:
        raise SpecError(Problem(file="model", message=f"expected 'provider:model' such as 'openai:gpt-6-luna', or 'simulated', got {model!r}"))
    return {"provider": provider, "model": name}


def _record(item: Any, *, templated: bool) -> Any:
    if isinstance(item, str):
        return {"text": item, "item": item} if templated else {"prompt": item}
    return item


def _collected(path: Path, rows: Sequence[Any]) -> list[Result | None]:
    """The result of each item: matched as the run did, by content and, among equals, by order."""
    seen: Counter[str] = Counter()
    found: list[Result | None] = []
    with StoreReader(path) as reader:
        for chunk in from_records(rows):
            for row in chunk:
                seen[row.identity] += 1
                found.append(result_at(reader, row.identity, seen[row.identity]))
    return found


def _whole(found: list[Result | None], summary: Summary, *, lasting: bool) -> list[Result]:
    whole = [result for result in found if result is not None]
    if len(whole) == len(found):
        return whole
    # Its cap has a name of its own here.
    why = in_python(summary.message or "the run ended early").replace("budget.usd ", "budget_usd ")
    kept = "call again to go on" if lasting else "give `store=` a path, and a second call goes on where this one ended"
    raise Stopped(f"{len(found) - len(whole)} of {len(found)} items have no result: {why} ({kept})", results=found, summary=summary)
