"""What Ollama's native wire answers, whole or streamed as JSON lines.

The traps: counts that are 0 are left out; an error in mid-stream is a last line in a 200, and may be an object or JSON inside a text; `load` for a reason
means that the prompt was empty. Sources: protocols D.1, D.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.core.nouns import Fault, Finish, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, no_answer, read_json, text_of, unreadable
from batchllm.providers.broken import NO_BODY, broken
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import ErrorBody, error_of
from batchllm.providers.ndjson import Lines
from batchllm.providers.usage import token_count

_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length"}
_LOADED = ("load", "unload")


def decode(reply: HttpReply) -> Reply | Fault:
    """What the server said. Never raises, whatever the bytes."""
    if not 200 <= reply.status < 300:
        return classify(reply.status, reply.headers, reply.body)
    data = read_json(reply.body)
    if isinstance(data, dict):
        return understand(reply, data)
    if reply.body.lstrip()[:1] == b"{" and b"\n" in reply.body.strip():
        # A stream all the same: Ollama's default.
        stream = OllamaStream()
        stream.feed(reply.body)
        return stream.end(HttpReply(status=reply.status, body=b"", headers=reply.headers))
    return unreadable(reply)


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """None where the prompt's count is missing: a prompt that was in the cache has none, and that is not zero."""
    read, made = token_count(data.get("prompt_eval_count")), token_count(data.get("eval_count"))
    if read is None or read <= 0 or made == -1:
        return None
    return Usage(input_tokens=read, output_tokens=made or 0)


def understand(reply: HttpReply, data: Mapping[str, Any]) -> Reply | Fault:
    """The answer that an object with `done: true` holds, or the error that it is."""
    usage = usage_of(data)
    if data.get("error"):
        error = error_of(data)
        if error is not None:
            return classify_inner(error, reply.headers, usage=usage, status=reply.status)
    message = data.get("message")
    if not isinstance(message, dict):
        if not isinstance(data.get("response"), str):
            return no_answer(reply, f"{reply.status} without a message", usage=usage)
        message = {"content": data["response"]}
    reason = text_of(data.get("done_reason"))
    if data.get("done") is not True:
        return replace(no_answer(reply, "the answer was broken off by the server (not done)", usage=usage), kind=Kind.CUT)
    calls = _calls(message.get("tool_calls"))
    text = text_of(message.get("content"))
    if reason in _LOADED and text is None and not calls:
        fault = no_answer(reply, "the prompt was empty: Ollama only loaded the model", usage=usage)
        return replace(fault, kind=Kind.BAD_REQUEST, provider_code=reason, billed="no")
    # Old servers give no reason.
    finish: Finish = "stop" if reason is None else _FINISH.get(reason, "unknown")
    if calls and finish in ("stop", "unknown"):
        finish = "tool"
    elif text is None and finish in ("stop", "length"):
        text = ""
    return Reply(text=text, finish=finish, finish_raw=reason, usage=usage, tool_calls=calls, provider_model=text_of(data.get("model")))


def _calls(calls: Any) -> tuple[Mapping[str, Any], ...]:
    """Calls in chat's form. Old servers give them no id."""
    made = []
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else json_of({} if arguments is None else arguments)
            call_id = text_of(call.get("id")) or f"call_{place + 1}"
            made.append({"id": call_id, "type": "function", "function": {"name": text_of(function.get("name")) or "", "arguments": text}})
    return tuple(made)


class OllamaStream:
    """Reads one streamed answer."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._texts: list[str] = []
        self._calls: list[Any] = []
        self._last: dict[str, Any] = {}
        """The object that said `done`."""
        self._error: ErrorBody | None = None
        self._began = False

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought a part of the answer."""
        progress = False
        for line in self._lines.feed(chunk):
            progress = self._line(line) or progress
        return progress

    def _line(self, line: bytes) -> bool:
        data = read_json(line)
        if not isinstance(data, dict) or self._last:
            return False
        if data.get("error") and self._error is None:
            self._error = error_of(data)
            return False
        message = data.get("message")
        message = message if isinstance(message, dict) else {}
        piece = text_of(message.get("content")) or text_of(data.get("response"))
        if piece is not None:
            self._texts.append(piece)
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            self._calls += calls
        progress = piece is not None or bool(calls or message.get("thinking") or data.get("thinking"))
        self._began |= progress
        if data.get("done") is True:
            self._last = data
            return True
        return progress

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. The answer is whole once `done` was said, whatever happened to the connection after that."""
        if isinstance(came, HttpReply) and (came.body or not 200 <= came.status < 300):
            return decode(came)
        for line in self._lines.close():
            self._line(line)
        if self._last and self._error is None:
            message = {"content": "".join(self._texts), "tool_calls": self._calls}
            return understand(came if isinstance(came, HttpReply) else NO_BODY, {**self._last, "message": message})
        return broken(came, error=self._error, usage=None, request_id=None, began=self._began)
