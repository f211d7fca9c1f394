"""One tried row on a terminal: where it goes and for how much, the exact request, what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batchllm.core import json
from batchllm.core.money import pico_from_usd, text_usd, usd_from_pico
from batchllm.core.nouns import Result
from batchllm.engine.try_row import Asked, Chosen, Tried
from batchllm.report.text import clean
from batchllm.retry.decide import MENDS
from batchllm.spec import JobSpec

_LONG = 400
"""Characters of one text inside a shown request that aren't cut."""
_MEDIA = re.compile(r"^(data:[^;,]{1,80};base64,)?[A-Za-z0-9+/=_-]{400,}$")


def chosen_lines(chosen: Chosen, spec: JobSpec) -> Iterator[str]:
    """Which row, and where it goes."""
    name = f", {clean(chosen.row.custom_id, 60)}" if chosen.row.custom_id is not None else ""
    yield f"row {chosen.row.position}{name} ({clean(chosen.row.place, 100)})"
    if chosen.by_flag:
        why = "--model names it"
    elif chosen.rule is None:
        why = "the row names it"
    else:
        when = spec.routes[chosen.rule].when
        why = f"rule {chosen.rule + 1} of {len(spec.routes)}: {'every row' if when is None else when}"
    yield f"route: {', then '.join(chosen.chain)} ({why})"


def asked_lines(asked: Asked, spec: JobSpec, *, whole: bool) -> Iterator[str]:
    """A request before it leaves; `whole`: long texts aren't cut."""
    model = spec.models[asked.name]
    yield f"model: {asked.name} = {model.provider} {model.model}"
    if asked.input_tokens is not None:
        bound = "the most that it can cost is not known" if asked.bound_pico is None else f"it costs at most {text_usd(asked.bound_pico)}"
        yield f"input: about {asked.input_tokens:,} tokens ({asked.counter}); {bound}"
    yield f"{asked.method} {asked.url}"
    for name, value in asked.headers.items():
        yield f"{name}: {clean(value, 120)}"
    yield pretty(asked.body, whole=whole)


def pretty(body: bytes, *, whole: bool) -> str:
    """A JSON body for reading; pictures and other long data shortened unless `whole`."""
    try:
        data = json.loads(body)
    except json.JSONDecodeError:
        return clean(body.decode("utf-8", "replace"), None if whole else 2000)
    text = orjson.dumps(data if whole else _short(data), option=orjson.OPT_INDENT_2).decode()
    # What JSON leaves as it is may still turn the direction of writing.
    return "\n".join(" " * (len(line) - len(line.lstrip())) + clean(line) for line in text.splitlines())


def _short(value: Any) -> Any:
    if isinstance(value, str):
        if _MEDIA.match(value):
            return f"{value[:60]}… ({len(value):,} characters)"
        return value
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > _LONG:
        return [*value[:5], f"… ({len(value):,} items)"]
    return [_short(item) for item in value] if isinstance(value, list) else value


def ended_lines(tried: Tried) -> Iterator[str]:
    """What came of it."""
    result, trouble = tried.result, tried.trouble
    if trouble is not None and (result is None or not result.ok):
        status = f"{trouble.http_status} " if trouble.http_status is not None else ""
        code = f" [{trouble.provider_code}]" if trouble.provider_code else ""
        yield f"no answer: {status}{trouble.kind}{code}: {clean(trouble.message, 500)}"
        if trouble.wait_seconds is not None:
            yield f"the server asks to wait {trouble.wait_seconds:g} s; a run would"
        elif trouble.kind in MENDS:
            yield f"a run would stop: {MENDS[trouble.kind]}"
        elif result is None and tried.summary.exit_code == 130:
            yield "a run would try this row again"
    elif result is None:
        yield f"no answer: {clean(tried.summary.message or 'nothing was sent', 500)}"
    elif result.ok:
        yield f"ok, finish {result.finish_reason}; {_numbers(tried, result)}"
    else:
        assert result.error is not None
        yield f"failed, {result.error.code}: {clean(result.error.message, 500)}"
        if tried.asked:
            yield _numbers(tried, result)
    if len(tried.asked) > 1:
        yield f"{len(tried.asked)} requests: {', '.join(asked.name for asked in tried.asked)}"
    if result is not None and result.ok and result.parsed is not None:
        yield f"parsed: {clean(json.text(result.parsed), 2000)}"
    if result is not None and result.tool_calls:
        yield f"tool calls: {clean(json.text(list(result.tool_calls)), 2000)}"
    yield "Nothing was recorded: the job's store and results are as they were." + (
        " (If the provider bills it, it is on the bill all the same.)" if _billed(tried) else ""
    )


def _billed(tried: Tried) -> bool:
    """Whether a real provider may have worked for it."""
    if tried.trouble is not None and tried.trouble.billed == "no" and len(tried.asked) == 1:
        return False
    return any(not asked.url.startswith("http://simulator.invalid/") for asked in tried.asked)


def _numbers(tried: Tried, result: Result) -> str:
    usage = result.usage
    parts = []
    if usage is not None:
        more = [f"{usage.cached_input_tokens:,} cached"] if usage.cached_input_tokens else []
        thought = f" ({usage.reasoning_tokens:,} reasoning)" if usage.reasoning_tokens else ""
        parts.append(f"{usage.input_tokens:,} in{f' ({more[0]})' if more else ''}, {usage.output_tokens:,} out{thought}")
    cost = result.cost_usd
    bound = tried.asked[0].bound_pico if tried.asked else None
    of = f" of at most {text_usd(bound)}" if bound is not None and len(tried.asked) == 1 else ""
    parts.append("cost not known" if cost is None else f"{text_usd(pico_from_usd(cost))}{of}")
    if result.latency_seconds is not None:
        first = f", first words after {tried.first_seconds:.2f} s" if tried.first_seconds is not None else ""
        parts.append(f"{result.latency_seconds:.2f} s{first}")
    if result.provider_model:
        parts.append(f"answered by {clean(result.provider_model, 80)}")
    return "; ".join(parts)


def as_dict(tried: Tried, spec: JobSpec) -> dict[str, Any]:
    """For `--json`: everything, exactly."""
    chosen = tried.chosen
    trouble = tried.trouble
    return {
        "custom_id": chosen.row.custom_id,
        "row": chosen.row.position,
        "place": chosen.row.place,
        "route": {"models": list(chosen.chain), "rule": chosen.rule, "when": spec.routes[chosen.rule].when if chosen.rule is not None else None},
        "requests": [
            {
                "model": asked.name,
                "method": asked.method,
                "url": asked.url,
                "headers": dict(asked.headers),
                "body": _json_or_text(asked.body),
                "streamed": asked.streamed,
                "input_tokens": asked.input_tokens,
                "counter": asked.counter,
                "cost_usd_max": usd_from_pico(asked.bound_pico) if asked.bound_pico is not None else None,
            }
            for asked in tried.asked
        ],
        "result": tried.result.as_dict() if tried.result is not None else None,
        "trouble": None
        if trouble is None
        else {"kind": str(trouble.kind), "message": trouble.message, "http_status": trouble.http_status, "provider_code": trouble.provider_code},
        "first_seconds": tried.first_seconds,
    }


def _json_or_text(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        return body.decode("utf-8", "replace")
