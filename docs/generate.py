"""Fills the generated parts of docs/*.md from the program itself: `python docs/generate.py` writes them, `--check` only says which are stale (exit 1).

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is outside is written by hand and left alone. The trap: the pages must not
depend on the machine, so nothing here reads the environment, the time or the network.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchllm.core.nouns import Code
from batchllm.report.fixes import fix_of
from batchllm.spec import json_schema
from batchllm.spec.hosts import AS_OF, HOSTS, CompatibleHost
from batchllm.spec.model import HOSTS as OWN_HOSTS
from batchllm.store.schema import VERSION, VIEWS, migrate

FOLDER = Path(__file__).parent
_PART = re.compile(r"(?<=<!-- generated: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# The spec: a section for every group of keys, in the order in which they are met.


def spec() -> str:
    """Every key, its form, its default and its line."""
    schema = json_schema()
    groups = list(_groups(schema))
    places = {name: place for place, name in groups}
    text = _keys(schema, schema, places)
    parameters = next(option for option in schema["properties"]["request"]["anyOf"] if "properties" in option)
    text += f"\n### `request`\n\nParameters that are checked; others are sent as they are.\n\n{_keys(parameters, schema, places)}"
    for place, name in groups:
        part = schema["$defs"][name]
        text += f"\n### `{place}`\n\n{part.get('description', '')}\n\n{_keys(part, schema, places)}"
    return text


def _keys(part: Mapping[str, Any], schema: Mapping[str, Any], places: Mapping[str, str]) -> str:
    rows = []
    for name, value in part["properties"].items():
        told = _told(value, schema)
        # Where the line tells the default in words, that is the whole truth.
        default = value.get("default") if "default:" not in told.lower() else None
        shown = "required" if name in part.get("required", []) else f"`{json.dumps(default)}`" if default not in (None, [], {}) else ""
        rows.append([f"`{name}`", _form(value, places), shown, told])
    return table(["key", "value", "default", "meaning"], rows)


def _told(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The key's own line, else that of the group it holds; what looks like a tag outside of code is no tag."""
    text = value.get("description") or next((schema["$defs"][name].get("description", "") for _, name in _refs(value)), "")
    parts = " ".join(text.split()).split("`")
    return "`".join(part.replace("<", "&lt;") if at % 2 == 0 else part for at, part in enumerate(parts))


def _form(value: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """What may stand there, in few words; that null is "none" everywhere is said once, on the page."""
    if "anyOf" in value:
        forms = dict.fromkeys(_form(option, places) for option in value["anyOf"] if option.get("type") != "null")
        return " or ".join(form for form in forms if form)
    if "$ref" in value:
        return f"[keys](#{re.sub(r'[^a-z_]', '', places[value['$ref'].rsplit('/', 1)[1]].lower())})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(word) if not isinstance(word, str) else word}`" for word in value["enum"] if word is not None)
    if value.get("type") == "array":
        return f"list of {_form(value.get('items', {}), places)}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"name: {_form(inner, places)}" if isinstance(inner, dict) and inner else "object"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "not yet"}
    kind = value.get("type", "anything")
    return " or ".join(words.get(one, one) for one in (kind if isinstance(kind, list) else [kind]) if one != "null" or kind == "null")


def _groups(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, name of its definition) of every group, each definition once, parents first."""
    told: set[str] = set()
    waiting = [("", schema)]
    while waiting:
        place, part = waiting.pop(0)
        for key, value in part.get("properties", {}).items():
            for steps, name in _refs(value):
                if name not in told:
                    told.add(name)
                    inner = f"{place}.{key}{steps}" if place else f"{key}{steps}"
                    yield inner, name
                    waiting.append((inner, schema["$defs"][name]))


def _refs(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    if "$ref" in value:
        yield "", value["$ref"].rsplit("/", 1)[1]
    for option in value.get("anyOf", []):
        yield from _refs(option)
    for steps, name in _refs(value.get("items")):
        yield f"[]{steps}", name
    for steps, name in _refs(value.get("additionalProperties")):
        yield f".NAME{steps}", name


# Providers.


def providers() -> str:
    """Providers with a host of their own."""
    rows = [[f"`{name}`", host.base_url, f"`{host.key_env}`" if host.key_env else "needs none"] for name, host in OWN_HOSTS.items()]
    return table(["provider", "host", "key"], rows)


def hosts() -> str:
    """What is known of compatible servers."""
    rows = [
        [f"`{host.name}`", host.base_url or "your `base_url`", f"`{host.key_env}`" if host.key_env else "", "; ".join(_accents(host)) or "plain"]
        for host in HOSTS
    ]
    return f"As of {AS_OF}:\n\n" + table(["`host`", "address", "key", "what is done for it"], rows)


def _accents(host: CompatibleHost) -> Iterator[str]:
    if host.output_cap is None:
        yield "the output cap goes under the name that the request has"
    elif host.output_cap != "max_tokens":
        yield f"the output cap is sent as `{host.output_cap}`"
    for ours, theirs in host.rename.items():
        yield f"`{ours}` is sent as `{theirs}`"
    if host.drop:
        yield "left out: " + ", ".join(f"`{name}`" for name in host.drop)
    if host.key_header != "Authorization":
        yield f"the key goes in the header `{host.key_header}`"
    if host.deployments:
        yield "the model is named in the path"
    if host.query:
        yield "URLs end with " + ", ".join(f"`?{key}={value}`" for key, value in host.query.items())
    if not host.stream_usage:
        yield "no `stream_options`"
    if not host.json_schema:
        yield "a schema is asked for as plain JSON, and checked here"
    if host.requests_per is not None:
        yield f"its request header counts a {host.requests_per}"


# The store.

_MEANINGS = {
    "row_key": "the row's number in this store; it never changes",
    "row": "position over all input files, from 0",
    "custom_id": "the row's id, or its number where rows have none; null for a line that can't be read",
    "status": "`ok` or `failed`",
    "output": "the answer's text; of embeddings the vector as a BLOB of little-endian float32 (`numpy.frombuffer(output, '<f4')`, or SQLite's vector extensions)",
    "parsed": "its value as JSON, where answers have a form",
    "model": "name in the spec",
    "provider_model": "the model id that the provider says answered",
    "model_id": "model id in the spec",
    "provider": "as in the spec",
    "finish_reason": "the provider's word",
    "input_tokens": "all input tokens, cached ones included",
    "output_tokens": "all output tokens, reasoning included",
    "cached_input_tokens": "those of the input that came from the provider's cache",
    "cache_write_tokens": "those of the input that were written to it",
    "reasoning_tokens": "those of the output that were reasoning",
    "cost_usd": "dollars, where the price is known; null is unknown",
    "reserved_usd": "dollars held for attempts that may have been billed",
    "cost_pico": "the same in exact pico-dollars (10⁻¹² USD)",
    "reserved_pico": "reserved, in exact pico-dollars",
    "latency_seconds": "of the accepted attempt",
    "error_code": "stable code, see the [FAQ](faq.md)",
    "error_message": "what was wrong, in words",
    "error_http_status": "the answer's HTTP status, where there was one",
    "error_provider_code": "the provider's own code",
    "error_retryable": "1: the same request may well succeed later",
    "shared_from": "the row whose identical request gave the answer",
    "fingerprint": "of the logical request",
    "run": "number of the run",
    "finished_at": "UTC, ISO 8601",
    "input": "kept input columns as JSON (`output.keep`)",
    "tool_calls": "JSON in OpenAI's form",
    "attempt_id": "number of the attempt in this store",
    "samples": "with `samples`: all answers of the row as JSON, each with `output`, `parsed` and `finish_reason`; else null",
    "agreement": "with `output.vote`: the part of them that voted for the result",
    "key_env": "the variable that holds its key, where a model has several",
    "attempt": "counts a row's attempts, from 1",
    "kind": "`first`, `retry`, `repair`, `fallback`, `escalation`, `turn`",
    "started_at": "UTC, ISO 8601; sent right after it was committed",
    "ended_at": "UTC, ISO 8601; null while in flight or cut by a crash",
    "http_status": "of the answer",
    "outcome": "`ok`, `in_flight`, `cancelled` or an error code",
    "billed": "`no`, `maybe`, `yes`",
    "request_id": "the provider's",
    "counted": "1: used up one of the row's `max_attempts`",
    "refused": '1: the server said "not now"',
    "simulated": "1: simulated dollars",
    "price_version": "which price it was priced by",
    "provider_cost_usd": "what the provider itself says it cost",
    "message": "the error's words, cut",
    "settled": "the settlement that told what it cost",
    "reserved_tokens": "tokens held for it",
    "route": "index of the route that took the row",
    "pack": "`attempt_id` of the first of the rows that left in one request (embeddings); null: it left alone",
    "trimmed": "messages that it lost to fit the model's window (`context`); null: none",
    "first_token_seconds": "from sending to the first token of a stream",
    "tokens_per_second": "of a stream, after its first token",
    "unpriced": "attempts that cost something nobody knows",
    "day": "UTC day of sending",
    "job": "its name",
    "total": "rows of the input; null until its end was read",
    "ok": "rows answered",
    "failed": "rows failed",
    "pending_known": "rows read and not finished",
    "simulated_cost_usd": "simulated dollars",
    "simulated_reserved_usd": "simulated dollars held",
    "code": "error code of the rows",
    "provider_code": "the provider's own code",
    "first_row": "position of the first such row",
    "example_id": "id of one of them",
    "example": "message of one of them",
}
_OF_A_VIEW = {
    ("results", "attempts"): "requests that were sent for the row",
    ("results", "cost_usd"): "dollars of all the row's attempts since its request last changed; null: unknown",
    ("summary", "attempts"): "requests that were sent",
    ("errors", "rows"): "how many rows failed so",
}
_VIEWS = {
    "results": "One row per finished input row.",
    "attempts": "One row per request that was sent (in a request for several embeddings, one for each of them). This is the ledger.",
    "summary": "One row: where the job stands.",
    "errors": "Failed rows by cause.",
    "spend_by_model": "What each model was asked and cost.",
    "spend_by_day": "By UTC day of sending.",
    "spend_by_kind": "First requests, retries, repairs, fallbacks, escalations, turns of tools.",
    "spend_by_route": "By the route that took the row.",
}
_TABLES = {
    "job": "One row: the spec as written, its folder, the program's version.",
    "runs": "One row per run: when, how it ended, its options and caps.",
    "rows": "One row per input row: its identity and state (0 pending, 1 ok, 2 failed).",
    "outcomes": "What `results` is made from.",
    "attempt_log": "What `attempts` is made from.",
    "bodies": "Requests and responses as they went over the wire, without keys (`keep_bodies`).",
    "history": "Answers that were replaced, with when and why.",
    "deployments": "Models as they were called: name, provider, address as written, model id.",
    "settlements": "What `settle` was told.",
    "changes": "What was changed while runs were on (`set`, `pause`...).",
    "learnt": "What answers taught about each model: token ratio, output lengths.",
    "samples": "With `samples`: each good answer of a row, as it came.",
    "batches": "Batches at the provider; nothing fills it yet.",
}


def store() -> str:
    """Views with their columns, then the tables beneath."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    text = f"Schema version {VERSION} (`PRAGMA user_version`).\n\n## Views\n"
    for view in [*VIEWS, "answers"]:
        words = _VIEWS.get(view, "") if view != "answers" else (
            "Ok answers. With `output.schema` it has one column per top-level property, in place of `output`."
        )  # fmt: skip
        rows = [
            [f"`{name}`", _OF_A_VIEW.get((view, name)) or ("requests sent" if name == "attempts" else _MEANINGS.get(name, ""))]
            for _, name, *_ in connection.execute(f"PRAGMA table_info({view})")
        ]
        text += f"\n### `{view}`\n\n{words}\n\n{table(['column', 'meaning'], rows)}"
    text += "\n## Tables\n\nThe views rest on these. Their columns may change with a version; the views' names stay.\n\n"
    found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
    rows = []
    for name in found:
        if not name.startswith(("_", "sqlite_")):
            columns = ", ".join(f"`{column}`" for _, column, *_ in connection.execute(f"PRAGMA table_xinfo({name})"))
            rows.append([f"`{name}`", _TABLES.get(name, ""), columns])
    connection.close()
    return text + table(["table", "what", "columns"], rows)


# Failures.


def codes() -> str:
    """Every error code of a row with its fix, as `batchllm errors` says it."""
    rows = [[f"`{code}`", fix_of(code).words, f"`{_NEXT[fix_of(code).next]}`"] for code in Code]
    return table(["code", "what to do", "then"], rows)


_NEXT = {
    "retry": "batchllm retry JOB --code CODE",
    "run": "batchllm run JOB",
    "model": "batchllm retry JOB --code CODE --model NAME",
}
PARTS: Mapping[str, Callable[[], str]] = {"spec": spec, "providers": providers, "hosts": hosts, "store": store, "codes": codes}


def filled(text: str) -> str:
    """A page with its generated parts made anew. KeyError for a part that nobody makes."""
    return _PART.sub(lambda found: f"{found[1]}{found[2]}{PARTS[found[1]]()}", text)


def main(arguments: Sequence[str]) -> int:
    """Writes, or with `--check` only looks."""
    stale = []
    for page in sorted(FOLDER.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            stale.append(page.name)
            if "--check" not in arguments:
                page.write_text(after, encoding="utf-8")
    print("\n".join(f"{'stale' if '--check' in arguments else 'wrote'} docs/{name}" for name in stale) or "docs are current")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
