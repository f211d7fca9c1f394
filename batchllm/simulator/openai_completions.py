"""The OpenAI dialect's plain completions (protocols A.6): a prompt goes on, without roles. Compatible servers use them for base models.

Several prompts in one request make their choices one after the other, n for each.
"""

from __future__ import annotations

from typing import Any

from batchllm.core import json
from batchllm.core.words import count_text
from batchllm.simulator import openai_errors, openai_request
from batchllm.simulator.dialect import Answer, Ask, Choice, Problem
from batchllm.simulator.openai import DONE, OpenAIWire, event, pieces, usage_of

_FINISH = {"stop": "stop", "length": "length", "tool": "stop", "filter": "content_filter", "error": "error", None: None}
_LOGPROBS_MAX = 5


class OpenAICompletions(OpenAIWire):
    """`POST /v1/completions`."""

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        document = openai_request.read(body)
        if isinstance(document, Problem):
            return document
        model = document["model"]
        if "messages" in document:
            return openai_request.invalid("Unrecognized request argument supplied: messages", "messages", model=model)
        prompts = openai_request.texts(document.get("prompt"))
        if prompts is None:
            return openai_request.invalid("Invalid 'prompt': expected a string, an array of strings, or token ids.", "prompt", model=model)
        problem = openai_request.parameters_problem(document) or _problem(document)
        if problem is not None:
            return openai_request.invalid(*problem, model=model)
        options = document.get("stream_options")
        return Ask(
            model=model,
            messages=[{"role": "user", "content": text} for text in prompts],
            digest=openai_request.digest(document),
            input_tokens=sum(count_text(text) for text in prompts),
            # Here, unlike in chat, a missing cap is a small one.
            cap=document.get("max_tokens") or 16,
            choices=len(prompts) * (document.get("n") or 1),
            stream=document.get("stream") is True,
            stream_usage=isinstance(options, dict) and options.get("include_usage") is True,
            stop=openai_request.stops(document.get("stop")),
            logprobs=document.get("logprobs") is not None,
            echo=document.get("echo") is True,
            last_text=prompts[-1],
        )

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A `text_completion` object."""
        choices = [
            _choice(ask, index, _whole(ask, answer, index, choice), choice, _FINISH[choice.finish]) for index, choice in enumerate(answer.choices)
        ]
        document = {**_head(ask, utc), "choices": [] if fault == "no_choices" else choices, "usage": usage_of(answer, fault)}
        if fault == "usage_missing":
            del document["usage"]
        return json.dumps(document)

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """The same object in pieces, then usage if it was asked for, and `[DONE]`."""
        head = _head(ask, utc)
        usage = usage_of(answer, fault)
        every = {"usage": usage} if fault == "stream_usage_every" else {"usage": None} if ask.stream_usage else {}
        frames: list[bytes] = []
        for index, choice in enumerate(answer.choices):
            parts = pieces(_whole(ask, answer, index, choice)) or [""]
            for place, part in enumerate(parts):
                finish = None if place < len(parts) - 1 or fault == "stream_no_finish" else _FINISH[choice.finish]
                frames.append(event({**head, "choices": [_choice(ask, index, part, choice, finish)], **every}))
        if fault == "stream_error":
            error = openai_errors.reply("500", model=ask.model, utc=utc, details=None).body
            return [*frames[: max(len(frames) // 2, 1)], b"data: " + error + b"\n\n"]
        if fault == "stream_stall_comments":
            return frames[:1]
        if fault == "stream_first_empty":
            frames.insert(0, event({**head, "choices": []}))
        if ask.stream_usage and fault not in ("usage_missing", "stream_no_finish"):
            choices = [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}] if fault == "stream_usage_in_choices" else []
            frames.append(event({**head, "choices": choices, "usage": usage}))
        if fault not in ("stream_no_done", "stream_no_finish"):
            frames.append(DONE)
        return frames


def _problem(document: dict[str, Any]) -> tuple[str, str] | None:
    wanted = document.get("logprobs")
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted <= _LOGPROBS_MAX):
        return f"Invalid 'logprobs': expected an integer from 0 to {_LOGPROBS_MAX}, but got {json.text(wanted)} instead.", "logprobs"
    return None


def _head(ask: Ask, utc: float) -> dict[str, Any]:
    head = {"id": "cmpl-" + ask.digest[:12].hex(), "object": "text_completion", "created": int(utc), "model": ask.model}
    return {**head, "system_fingerprint": "fp_simulated"}


def _whole(ask: Ask, answer: Answer, index: int, choice: Choice) -> str:
    # This wire has no place for a refusal but the text itself.
    text = choice.text or choice.refusal or ""
    return str(ask.messages[index * len(ask.messages) // len(answer.choices)]["content"]) + text if ask.echo else text


def _choice(ask: Ask, index: int, text: str, choice: Choice, finish: str | None) -> dict[str, Any]:
    logprobs: dict[str, Any] | None = None
    if ask.logprobs and choice.text is not None:
        tokens = pieces(text)
        offsets = [sum(len(token) for token in tokens[:place]) for place in range(len(tokens))]
        # Invented, but of the right form: longer words are less likely.
        chances = [-0.01 * len(token) for token in tokens]
        tops = [{token: chance} for token, chance in zip(tokens, chances, strict=True)]
        logprobs = {"tokens": tokens, "token_logprobs": chances, "top_logprobs": tops, "text_offset": offsets}
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
