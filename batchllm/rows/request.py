"""A draft and a model's parameters become a `Request`, and a request its fingerprint: what decides whether an answer still stands.

The trap: a change of what is hashed, or how, makes every stored answer look changed, and every row is paid for again. So the form is written down at
`fingerprint`, tests hold it by fixed values, and another form would be another version (`v2:`).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from batchllm.core import json
from batchllm.core.nouns import Draft, Request, Wanted

VERSION = "v1"
_FLAT = frozenset({str, int, bool})


def merge(
    draft: Draft,
    *,
    spec_request: Mapping[str, Any],
    model_request: Mapping[str, Any],
    body: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
) -> Request:
    """The request of a row to one model: spec, then model, then row, each winning over the one before, key by key (objects are replaced whole).

    Null means none: a null takes the key away, also one that an earlier layer set. `wanted`: the form that answers must have, the lowest layer of all.
    """
    params = {**spec_request, **model_request, **draft.params}
    if draft.endpoint == "embeddings":
        wanted = None
    if wanted is not None:
        params.setdefault("response_format", wanted.response_format)
    if None in params.values():
        params = {key: value for key, value in params.items() if value is not None}
    return Request(endpoint=draft.endpoint, messages=draft.messages, params=params, body=body or {}, wanted=wanted)


def fingerprint(request: Request) -> str:
    """`v1:` and the sha256 (hex) of the request's canonical JSON.

    The JSON is one object with exactly these keys: `endpoint` (text), `messages` (as filled: order and every key count, a null too), `params` (merged, with
    OpenAI's names, no nulls; schema and tools are among them), and `body` (the model's raw additions) only when it is not empty. Keys are sorted at every
    level, nothing is escaped that needn't be, and a float that is a whole number below 2^53 is written as an integer, so that 0 and 0.0 are one
    parameter. Where answers must have a form, `wanted` is its digest, and a `response_format` that was made of it is left out of `params`.
    Not in it: id, row, model, base URL, headers, keys, limits, prices, retry, stream, versions.
    """
    params = request.params
    wanted = request.wanted
    if wanted is not None and params.get("response_format") is wanted.response_format:
        params = {key: value for key, value in params.items() if key != "response_format"}
    form: dict[str, Any] = {"endpoint": request.endpoint, "messages": request.messages, "params": params}
    if request.body:
        form["body"] = request.body
    if wanted is not None:
        form["wanted"] = wanted.digest
    # The canonical form walks everything in Python to find whole floats; where there can be none, sorting alone gives the same bytes.
    data = orjson.dumps(form, option=orjson.OPT_SORT_KEYS) if _has_no_whole_float(request, params) else json.canonical(form)
    return f"{VERSION}:{sha256(data).hexdigest()}"


def _has_no_whole_float(request: Request, params: Mapping[str, Any]) -> bool:
    """Whether that can be seen at a glance: messages of texts only, no parameter that is an object or a list."""
    if request.body:
        return False
    for value in params.values():
        if type(value) not in _FLAT and (type(value) is not float or value.is_integer()):
            return False
    for message in request.messages:
        for item in message.values():
            if type(item) is not str:
                return False
    return True
