"""The codec of OpenAI's chat completions, for OpenAI itself and every server that speaks its wire.

Bytes in, values out: no I/O, no clock. `encode` and `decode` run once per row, so all that is constant for a model is made once, in the constructor. The trap:
"compatible" servers bend every rule - an error inside a 200, content as a list, no usage, an error for a finish - and an answer that was paid for must not
be lost to a pedantic parser. Sources: protocols A.2, A.3, E ("parser rules") and J.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from batchllm.core.json import JSONDecodeError, dumps, loads
from batchllm.core.nouns import Fault, Finish, Kind, LimitHint, Reply, Request, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.classify import classify, classify_inner
from batchllm.providers.envelope import SHOWN, error_of, header_text, read_error
from batchllm.providers.hints import limit_hints
from batchllm.providers.usage import cost_of, usage_of

_PATH = "/chat/completions"
_CAPS = ("max_tokens", "max_completion_tokens")
_NOT_SENT = frozenset({"model", "messages", "stream", "stream_options", "n"})
"""The lane's own model and the filled messages are sent; streams and several choices would neither be understood nor fit what was reserved."""
_LONGEST_CLIENT_ID = 512
"""Characters; OpenAI answers 400 to a longer one (protocols A.1)."""

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "tool_use": "tool",
    "content_filter": "filter",
    "safety": "filter",
    "recitation": "filter",
    "refusal": "refusal",
    "error": "error",
    "abort": "error",
    "insufficient_system_resource": "error",
}


def endpoint_url(base_url: str) -> str:
    """The URL that requests go to. The base may end in `/`, already name the endpoint, or carry a query (Azure's `?api-version=...`)."""
    parts = urlsplit(base_url.strip())
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH, fragment=""))


def _headers(api_key: Secret | None, own: Mapping[str, Secret | str]) -> dict[str, str | Secret]:
    """Ours, overruled by the spec's; a key or value read from a file or a shell often ends in a newline, which no header may carry."""
    headers: dict[str, str | Secret] = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key is not None:
        headers["Authorization"] = Secret(f"Bearer {api_key.reveal().strip()}")
    for name, value in own.items():
        for ours in [ours for ours in headers if ours.lower() == name.strip().lower()]:
            del headers[ours]
        headers[name.strip()] = Secret(value.reveal().strip()) if isinstance(value, Secret) else value.strip()
    return headers


class OpenAIChat:
    """Chat completions for one model at one endpoint.

    `output_cap_name` is the only spelling of the output cap that this server reads (Ollama: `max_tokens`; reasoning models: `max_completion_tokens`); None sends
    the cap as the request spells it. `send_client_request_id` is for servers that know `X-Client-Request-Id` (OpenAI, the simulator).
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: Secret | None,
        headers: Mapping[str, Secret | str],
        output_cap_name: Literal["max_tokens", "max_completion_tokens"] | None,
        send_client_request_id: bool,
    ) -> None:
        self.url = endpoint_url(base_url)
        self.model = model
        self._headers = _headers(api_key, headers)
        self._cap_name = output_cap_name
        self._tags = send_client_request_id and not any(name.lower() == "x-client-request-id" for name in self._headers)

    def __repr__(self) -> str:
        return f"OpenAIChat(model={self.model!r})"

    def encode(self, request: Request, *, client_request_id: str | None) -> HttpCall:
        """The HTTP call. Sends only what the request names; `request.body` is merged in raw, last. TypeError for what JSON can't carry (lone surrogates, huge ints)."""
        params = request.params
        body: dict[str, Any] = {"model": self.model, "messages": request.messages}
        if _NOT_SENT.isdisjoint(params):
            body.update(params)
        else:
            body.update((name, value) for name, value in params.items() if name not in _NOT_SENT)
        if self._cap_name is not None:
            self._rename_cap(body, self._cap_name)
        if request.body:
            body.update(request.body)
        headers = self._headers
        if self._tags and client_request_id is not None and len(client_request_id) <= _LONGEST_CLIENT_ID and client_request_id.isascii():
            headers = {**headers, "X-Client-Request-Id": client_request_id}
        return HttpCall(url=self.url, body=dumps(body, default=_plain), headers=headers)

    @staticmethod
    def _rename_cap(body: dict[str, Any], name: str) -> None:
        """One spelling; when the request has both, the smaller cap, as money was reserved for one of them."""
        other = _CAPS[0] if name == _CAPS[1] else _CAPS[1]
        if other in body:
            cap = body.pop(other)
            own = body.get(name)
            body[name] = min(own, cap) if isinstance(own, int) and isinstance(cap, int) else cap if own is None else own

    def decode(self, reply: HttpReply) -> Reply | Fault:
        """What the server said. Never raises, whatever the bytes."""
        if not 200 <= reply.status < 300:
            return classify(reply.status, reply.headers, reply.body)
        try:
            data = loads(reply.body)
        except JSONDecodeError:
            data = _salvaged(reply.body)
        if isinstance(data, list) and data:
            data = data[0]
        if not isinstance(data, dict):
            return _unreadable(reply)
        choices = data.get("choices")
        if data.get("error") or not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            return _without_choice(reply, data)
        return _answer(reply, data, choices[0])

    def hints(self, headers: Mapping[str, str]) -> tuple[LimitHint, ...]:
        """What the reply's headers say of the limits."""
        return limit_hints(headers)


def _plain(value: Any) -> Any:
    """For orjson: mappings and sequences of other types than dict and list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | range) or hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _salvaged(body: bytes) -> Any:
    """A body that strict JSON refuses but that holds an answer: a byte order mark, NaN log-probabilities, half an emoji where the cap fell. None if there is none."""
    import json

    try:
        data = json.loads(body.decode("utf-8-sig"))
        whole = json.dumps(data, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.loads(whole)
    except (ValueError, RecursionError):
        return None


def _text_of(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _protocol(reply: HttpReply, message: str, *, usage: Usage | None = None, request_id: str | None = None) -> Fault:
    """A 200 that can't be understood was executed as far as anybody knows."""
    return Fault(
        kind=Kind.PROTOCOL,
        message=message[:SHOWN],
        http_status=reply.status,
        billed="maybe" if usage is None else "yes",
        usage=usage,
        request_id=header_text(reply.headers, "x-request-id") or request_id,
    )


def _unreadable(reply: HttpReply) -> Fault:
    error = read_error(reply.body)
    what = {"html": "an HTML page", "empty": "an empty body", "text": "no JSON"}.get(error.form, "no JSON object")
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        what = "a stream that nobody asked for"
    return _protocol(reply, f"{reply.status} with {what}" + (f": {error.message[:200]}" if error.message else ""))


def _without_choice(reply: HttpReply, data: Mapping[str, Any]) -> Fault:
    """A 200 with an error in it (OpenRouter, once a provider started; SGLang's flat form), or with nothing."""
    usage, request_id = usage_of(data.get("usage")), _text_of(data.get("id"))
    error = error_of(data)
    if error is None:
        said = data.get("detail")
        words = f": {said[:200]}" if isinstance(said, str) else ""
        return _protocol(reply, f"{reply.status} without choices{words}", usage=usage, request_id=request_id)
    return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)


def _content(value: Any) -> tuple[str | None, str | None] | None:
    """Text and refusal of a message's content: null, a string, or a list of parts. None when it is something else."""
    if value is None or isinstance(value, str):
        return value, None
    if not isinstance(value, list):
        return None
    texts: list[str] = []
    refusals: list[str] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            # Thinking parts (Mistral) carry no `text`: they are not the answer.
            if isinstance(part.get("text"), str) and part.get("type") in ("text", "output_text", None):
                texts.append(part["text"])
            elif isinstance(part.get("refusal"), str):
                refusals.append(part["refusal"])
    return ("".join(texts) if texts else None), ("".join(refusals) or None)


def _tool_calls(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return tuple(call for call in calls if isinstance(call, dict))
    legacy = message.get("function_call")
    return ({"type": "function", "function": legacy},) if isinstance(legacy, dict) else ()


def _answer(reply: HttpReply, data: Mapping[str, Any], choice: Mapping[str, Any]) -> Reply | Fault:
    """The first choice. (llama-server sends two where one was asked for and counts one.)"""
    headers, told = reply.headers, data.get("usage")
    usage = usage_of(told)
    request_id = header_text(headers, "x-request-id") or _text_of(data.get("id"))
    finish_raw = _text_of(choice.get("finish_reason"))
    finish: Finish = "unknown" if finish_raw is None else _FINISH.get(finish_raw) or _FINISH.get(finish_raw.lower(), "unknown")
    if finish == "error" or choice.get("error"):
        return _cut(reply, choice, finish_raw, usage, request_id)
    message = choice.get("message")
    if not isinstance(message, dict):
        if finish not in ("length", "filter"):
            return _protocol(reply, f"{reply.status} with a choice without a message", usage=usage, request_id=request_id)
        # Gemini's compatible endpoint leaves the message out when thinking used up the cap.
        message = {}
    content = _content(message.get("content"))
    if content is None:
        return _protocol(reply, f"{reply.status} with content that is neither text nor parts", usage=usage, request_id=request_id)
    text, refusal = content
    refusal = _text_of(message.get("refusal")) or refusal
    tool_calls = _tool_calls(message) if "tool_calls" in message or "function_call" in message else ()
    if refusal is not None:
        finish = "refusal"
    elif tool_calls and finish in ("stop", "unknown"):
        finish = "tool"
    elif text is None and finish in ("stop", "length"):
        text = ""
    return Reply(
        text=text,
        finish=finish,
        finish_raw=finish_raw,
        usage=usage,
        tool_calls=tool_calls,
        refusal=refusal,
        provider_model=_text_of(data.get("model")),
        service_tier=_text_of(data.get("service_tier")),
        request_id=request_id,
        provider_cost_usd=cost_of(told, headers),
    )


def _cut(reply: HttpReply, choice: Mapping[str, Any], finish_raw: str | None, usage: Usage | None, request_id: str | None) -> Fault:
    """An answer that the server itself broke off: by the choice's own error if it has one (OpenRouter), else CUT."""
    error = error_of(choice) if choice.get("error") else None
    if error is not None:
        return classify_inner(error, reply.headers, usage=usage, status=reply.status, request_id=request_id)
    return Fault(
        kind=Kind.CUT,
        message=f"the answer was broken off by the server (finish_reason {finish_raw!r})",
        http_status=reply.status,
        provider_code=finish_raw,
        billed="maybe" if usage is None else "yes",
        usage=usage,
        request_id=request_id,
    )
