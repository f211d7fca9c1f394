"""What a stream is that came to no answer: the server's own error, the transport's fault, or an end without a finish reason.

The trap: such an answer may well be on the bill. Once a part of it came, it is; before that nobody knows.
"""

from __future__ import annotations

from dataclasses import replace

from batchllm.core.nouns import Fault, Kind, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.classify import classify_inner
from batchllm.providers.envelope import ErrorBody, header_text

NO_BODY = HttpReply(status=200, body=b"")
"""Stands for the reply of a stream whose connection broke: its headers are lost with it."""


def broken(came: HttpReply | Fault, *, error: ErrorBody | None, usage: Usage | None, request_id: str | None, began: bool) -> Fault:
    """The fault. `error`: what the server said in mid-stream; `began`: whether a part of the answer came; `usage`: the counts seen so far."""
    reply = came if isinstance(came, HttpReply) else NO_BODY
    request_id = header_text(reply.headers, "x-request-id", "request-id") or request_id
    if error is not None:
        fault = classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    elif isinstance(came, Fault):
        if not began and usage is None:
            return came if request_id is None else replace(came, request_id=came.request_id or request_id)
        fault = replace(came, usage=usage, request_id=came.request_id or request_id)
    else:
        message = "the stream ended without a finish reason" if began else "the stream ended before any answer came"
        fault = Fault(kind=Kind.CUT, message=message, http_status=reply.status, billed="maybe", usage=usage, request_id=request_id)
    return replace(fault, billed="yes") if began or usage is not None else fault
