"""Streamed chat and text completions: chunks are put together into the completion that a whole reply would have been, and that is read as ever.

The traps, all seen at "compatible" servers: usage in a chunk with choices, in every chunk or under `x_groq`; first chunks with empty choices or null content; an
error as a frame, as a finish reason or as bare JSON; no `[DONE]`; an end without a finish reason, which is no answer; a whole JSON reply instead of
a stream; parallel tool calls that all say index 0. Sources: protocols A.4, A.6, D.4, E and the field notes on gateways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.core.nouns import Fault, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers.bodies import json_of, read_json, text_of
from batchllm.providers.broken import NO_BODY, broken
from batchllm.providers.envelope import ErrorBody, error_of
from batchllm.providers.openai_reply import content_of, decode, understand
from batchllm.providers.sse import Sse, is_events
from batchllm.providers.usage import usage_of

_ABOUT = ("id", "model", "service_tier")
_THINKING = ("reasoning_content", "reasoning", "thinking")
_MOST_CALLS = 10_000


class ToolCalls:
    """Tool calls in fragments."""

    __slots__ = ("_at", "_calls")

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._at: dict[int, int] = {}
        """The wire's index -> place in the list."""

    def take(self, fragment: Mapping[str, Any]) -> None:
        """The next fragment of some call: its id and name come once, its arguments in pieces."""
        call = self._call(fragment)
        if call is None:
            return
        if text_of(fragment.get("id")):
            call["id"] = fragment["id"]
        for kind, argument in (("function", "arguments"), ("custom", "input")):
            part = fragment.get(kind)
            if isinstance(part, Mapping):
                call["kind"] = kind
                call["name"] = call["name"] or text_of(part.get("name"))
                piece = part.get(argument)
                if piece is not None and piece != "":
                    call["pieces"].append(piece if isinstance(piece, str) else json_of(piece))

    def _call(self, fragment: Mapping[str, Any]) -> dict[str, Any] | None:
        index, own_id = fragment.get("index"), text_of(fragment.get("id"))
        if isinstance(index, int) and index in self._at:
            there = self._calls[self._at[index]]
            if own_id is None or there["id"] in (None, own_id):
                return there
        elif not isinstance(index, int) and own_id is None and self._calls:
            return self._calls[-1]
        if len(self._calls) >= _MOST_CALLS:
            return None
        if isinstance(index, int):
            self._at[index] = len(self._calls)
        place = index if isinstance(index, int) else len(self._calls)
        self._calls.append({"place": place, "id": None, "kind": "function", "name": None, "pieces": []})
        return self._calls[-1]

    def whole(self) -> list[dict[str, Any]]:
        """The calls as a whole reply has them: in the order of the wire's indexes, where it has any."""
        return [
            {
                **({"id": call["id"]} if call["id"] else {}),
                "type": call["kind"],
                call["kind"]: {"name": call["name"] or "", ("arguments" if call["kind"] == "function" else "input"): "".join(call["pieces"])},
            }
            for call in sorted(self._calls, key=lambda call: call["place"])
        ]


class CompletionStream:
    """Reads one streamed completion."""

    def __init__(self) -> None:
        self._sse = Sse()
        self._about: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls = ToolCalls()
        self._finish: str | None = None
        self._choice: Mapping[str, Any] = {}
        """The choice that brought the finish reason."""
        self._error: ErrorBody | None = None
        self._began = False

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought a part of the answer."""
        progress = False
        for _, data in self._sse.feed(chunk):
            progress = self._event(data) or progress
        return progress

    def _event(self, data: str) -> bool:
        if data == "[DONE]":
            return False
        event = read_json(data)
        if not isinstance(event, dict):
            return False
        self._learn(event)
        choices = event.get("choices")
        # An error after the finish reason takes nothing away from the answer.
        if self._finish is None and self._error is None and (event.get("error") or not isinstance(choices, list)):
            self._error = error_of(event)
        progress = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                progress = self._take(choice) or progress
        return progress

    def _learn(self, event: Mapping[str, Any]) -> None:
        for name in _ABOUT:
            if name not in self._about and event.get(name):
                self._about[name] = event[name]
        groq = event.get("x_groq")
        if isinstance(groq, dict) and groq.get("error") and self._finish is None and self._error is None:
            self._error = error_of({"error": groq["error"]})
        for usage in (event.get("usage"), groq.get("usage") if isinstance(groq, dict) else None):
            # A last usage of zeros doesn't wipe out what was told before.
            if isinstance(usage, dict) and (self._usage is None or usage_of(usage) is not None):
                self._usage = usage

    def _take(self, choice: Mapping[str, Any]) -> bool:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice.get("message")
        progress = self._delta(delta) if isinstance(delta, dict) else False
        if text_of(choice.get("text")):
            self._texts.append(choice["text"])
            progress = True
        self._began |= progress
        finish = text_of(choice.get("finish_reason"))
        if self._finish is None and self._error is None and (finish is not None or choice.get("error")):
            self._finish, self._choice = finish or "error", choice
            return True
        return progress

    def _delta(self, delta: Mapping[str, Any]) -> bool:
        progress = any(delta.get(name) for name in _THINKING)
        content = delta.get("content")
        if content:
            progress = True
            text, refusal = content_of(content) or (None, None)
            if text:
                self._texts.append(text)
            if refusal:
                self._refusals.append(refusal)
        if text_of(delta.get("refusal")):
            self._refusals.append(delta["refusal"])
            progress = True
        calls = delta.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else ():
            if isinstance(fragment, dict):
                self._calls.take(fragment)
                progress = True
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._calls.take({"index": 0, "function": legacy})
            progress = True
        return progress

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. The answer is whole once its finish reason was seen, whatever happened to the connection after that."""
        if isinstance(came, HttpReply) and (came.body or not 200 <= came.status < 300):
            if not (200 <= came.status < 300 and is_events(came.body)):
                return decode(came)
            # A stream under another content type.
            self.feed(came.body)
            came = HttpReply(status=came.status, body=b"", headers=came.headers)
        for _, data in self._sse.close():
            self._event(data)
        reply = came if isinstance(came, HttpReply) else NO_BODY
        if self._finish is not None and self._error is None:
            outcome = understand(reply, self._whole())
            return outcome if isinstance(outcome, Reply) or not self._began else replace(outcome, billed="yes")
        stray = self._sse.stray
        if stray and not self._began and self._error is None:
            return decode(HttpReply(status=reply.status, body=stray, headers=reply.headers))
        return broken(
            came, error=self._error or _error_in(stray), usage=usage_of(self._usage), request_id=text_of(self._about.get("id")), began=self._began
        )

    def _whole(self) -> dict[str, Any]:
        """The completion as a whole reply would have been."""
        message: dict[str, Any] = {"content": "".join(self._texts) if self._texts else None}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        calls = self._calls.whole()
        if calls:
            message["tool_calls"] = calls
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._finish, "message": message}
        if self._choice.get("error"):
            choice["error"] = self._choice["error"]
        return {**self._about, "choices": [choice], "usage": self._usage}


def _error_in(stray: bytes) -> ErrorBody | None:
    """An error that came as bare JSON after the answer began."""
    return error_of(read_json(stray)) if stray else None
