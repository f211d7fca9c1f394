"""Whether an answer that was understood is one that the row may keep.

The rules, in order: a refusal or a filter fails the row, same model never again. An answer cut by the token cap is kept (`on_length: ok`) unless nothing but
blanks came; `fail` and `retry` take none that was cut. An answer that stopped by itself is kept even when it is empty: models do answer nothing. A finish that
nobody knows is kept when there is text or a tool call, else it is a reply that can't be understood. An answer that says "tool" and has neither call nor text is that too,
and one whose calls no store could hold.
"""

from __future__ import annotations

from typing import Literal

from batchllm.core.json import DEEPEST, is_too_deep
from batchllm.core.nouns import Code, Fault, Kind, Reply, RowError

OK_STATUS = 200


def _unusable(reply: Reply, kind: Kind, message: str) -> Fault:
    return Fault(
        kind=kind,
        message=message,
        http_status=OK_STATUS,
        provider_code=reply.finish_raw,
        billed="maybe" if reply.usage is None else "yes",
        usage=reply.usage,
        request_id=reply.request_id,
    )


def judge(reply: Reply, *, on_length: Literal["ok", "retry", "fail"]) -> RowError | Fault | None:
    """None: keep the answer. A `RowError`: the row is lost on this model, the reply's text may be kept. A `Fault`: decide whether to try again."""
    if reply.refusal is not None or reply.finish in ("refusal", "filter"):
        words = reply.refusal or (reply.text if reply.finish == "refusal" else None)
        words = words or f"the provider's content filter {'cut' if reply.text else 'withheld'} the answer"
        return RowError(code=Code.REFUSED, message=words[:500], http_status=OK_STATUS, provider_code=reply.finish_raw)
    if reply.finish == "error":
        return _unusable(reply, Kind.CUT, f"the answer was broken off by the server (finish {reply.finish_raw!r})")
    if reply.tool_calls and is_too_deep(reply.tool_calls):
        return _unusable(reply, Kind.PROTOCOL, f"tool calls that are nested more than {DEEPEST} levels deep can't be kept")
    has_text = bool(reply.text) and not (reply.text or "").isspace()
    if reply.finish == "length":
        empty = not has_text and not reply.tool_calls
        if not empty and on_length == "ok":
            return None
        words = "the token cap was used up before any text came (reasoning counts too)" if empty else "the answer was cut by the token cap"
        return RowError(code=Code.TRUNCATED, message=f"{words}: raise max_tokens", http_status=OK_STATUS, provider_code=reply.finish_raw)
    if reply.finish in ("unknown", "tool") and not has_text and not reply.tool_calls:
        return _unusable(reply, Kind.PROTOCOL, f"an answer without text or tool call (finish {reply.finish_raw!r})")
    return None
