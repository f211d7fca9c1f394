"""The simulated provider itself: decides for each request what will happen, and books it when it has happened.

Content depends on seed and request; faults on seed, request and how often that request was let in; only the limits depend on time. A refusal of the buckets is
therefore not counted as "seen": otherwise the faults of a run would depend on its timing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from urllib.parse import parse_qsl, unquote, urlsplit

from batchllm.core.nouns import Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall
from batchllm.simulator import answer as answers
from batchllm.simulator import anthropic, delivery, gemini, ollama, openai_responses
from batchllm.simulator.audit import Audit, Record
from batchllm.simulator.bucket import Buckets, Charge, charge_at_end, charge_at_start
from batchllm.simulator.dialect import Aside, Ask, Dialect, ErrorReply, Problem
from batchllm.simulator.draw import Draw
from batchllm.simulator.faults import BY_NAME, Deck, FaultKind, marker
from batchllm.simulator.ollama_desk import Desk
from batchllm.simulator.ollama_models import Shelf
from batchllm.simulator.openai import OpenAIChat
from batchllm.simulator.openai_completions import OpenAICompletions
from batchllm.simulator.openai_embeddings import OpenAIEmbeddings
from batchllm.simulator.openai_responses import OpenAIResponses
from batchllm.simulator.prefixes import Prefixes
from batchllm.simulator.script import Chunk, Script, Ticket
from batchllm.simulator.settings import Accounting, Settings

PriceOf = Callable[[str, Usage], int | None]
"""Pico-dollars of a request to this model; None when the price is unknown."""

DEFAULT_MODELS = ("sim-small", "sim-large")
DEFAULT_OUTPUT_CHARGE = 16 + answers.MEDIAN_TOKENS
"""What the token bucket is charged for output when a request names no cap."""

_OPENAI: Dialect = OpenAIChat()
_OPENAI_PATHS: dict[str, Dialect] = {
    "/chat/completions": _OPENAI,
    "/responses": OpenAIResponses(),
    "/completions": OpenAICompletions(),
    "/embeddings": OpenAIEmbeddings(),
}
ROUTES: dict[str, Dialect] = {start + path: dialect for path, dialect in _OPENAI_PATHS.items() for start in ("/v1", "")}
FINDERS: tuple[Callable[[str, Mapping[str, str], Mapping[str, str]], Dialect | None], ...] = (anthropic.find, gemini.find)
"""For paths that are not in `ROUTES`: (path, query, headers) -> the dialect, if it is one of its paths."""
ASIDES: tuple[Callable[[Aside], tuple[Dialect, ErrorReply | Problem] | None], ...] = (anthropic.aside, gemini.aside, openai_responses.aside)
"""What is answered without a model; each says whether a request is one of its own."""
_ERROR_SHARE = 0.1  # an error comes after this share of the latency
_NO_DRAW = Draw(b"")  # stands in where nothing is left to chance; never read from


@lru_cache(maxsize=1024)
def _place(url: str) -> tuple[str, dict[str, str]]:
    """Path and query."""
    parts = urlsplit(url)
    return parts.path.rstrip("/"), dict(parse_qsl(parts.query))


class Simulator:
    """One provider account. Every script that `receive` gives out must come back through `finish` exactly once."""

    def __init__(self, settings: Settings | None = None, *, price: PriceOf | None = None, started: float | None = None) -> None:
        settings = self.settings = settings or Settings()
        self.audit = Audit(self.settings.audit_records)
        self.in_flight = 0
        self._price = price
        self._started = started
        self._arrivals = 0
        self._buckets: dict[str, Buckets] = {}
        self._seen: dict[int, int] = {}
        self._prefixes = Prefixes()
        self._deck = Deck(self.settings.faults, self.settings.fault_kinds)
        self._limited = any(limit is not None for limit in (settings.rpm, settings.tpm, settings.itpm, settings.otpm, settings.rpd, settings.tpd))
        keys = settings.keys or frozenset()
        self._accounts = {key: sha256(key.encode()).hexdigest()[:8] for key in keys} if len(keys) > 1 else {}
        self._run = b"%d/" % self.settings.seed
        self._chancy = self.settings.faults > 0 or self.settings.latency_ms > 0
        # What is on an Ollama's disk changes while it runs, so its dialects belong to one simulator.
        self._shelf = Shelf(settings.models, shown=DEFAULT_MODELS)
        self._desk = Desk(self._shelf, settings.context_tokens)
        self._routes = {**ROUTES, **ollama.routes(self._shelf, settings.context_tokens)}

    def receive(self, call: HttpCall, *, now: float, utc: float) -> Script:
        """Decides everything about one request: admission, fault, content. `now` is the loop's clock, `utc` wall time."""
        if self._started is None:
            self._started = now
        self._arrivals += 1
        headers = {name.lower(): value.reveal() if isinstance(value, Secret) else value for name, value in call.headers.items()}
        client_id = headers.get("x-client-request-id")
        ticket = Ticket(time=utc, now=now, request_id=f"req_{self.settings.seed:04x}{self._arrivals:012x}", client_request_id=client_id)
        self.in_flight += 1
        if self.settings.outages:
            passed = now - self._started
            if any(start <= passed < end for start, end in self.settings.outages):
                ticket.fault = "outage"
                return Script(ticket=ticket, status=0, ending="refuse")
        path, query = _place(call.url)
        if path.startswith("/api/") or not path:
            served = self._served(call, path, headers, ticket, utc)
            if served is not None:
                return served
        dialect = self._routes.get(path) or next((found for finder in FINDERS if (found := finder(path, query, headers)) is not None), None)
        if dialect is None:
            aside = Aside(method=call.method, path=path, query=query, headers=headers, body=call.body, models=self.settings.models)
            return self._aside(aside, ticket, utc) or self._other(call.method, path, headers, ticket, utc)
        if call.method != "POST":
            return self._invalid(dialect, ticket, utc, Problem(name="method", details={"method": call.method, "path": path}))
        if (problem := self._stranger(dialect, headers)) is not None:
            return self._invalid(dialect, ticket, utc, problem)
        ticket.account = self._accounts.get(dialect.key(headers) or "")
        if client_id is not None and (len(client_id) > 512 or not client_id.isascii()):
            ticket.client_request_id = None
            return self._invalid(dialect, ticket, utc, Problem(name="client_id", details={}))
        ask = dialect.parse(call.body)
        if isinstance(ask, Problem):
            ticket.model = ask.model
            return self._invalid(dialect, ticket, utc, ask)
        return self._asked(dialect, ask, ticket, now, utc)

    def finish(self, script: Script, *, now: float, utc: float, delivered: bool) -> None:
        """Books a request that is over: token bucket to real usage, slot, audit record. `delivered`: the client has the whole reply."""
        ticket = script.ticket
        if ticket.finished:
            return
        ticket.finished = True
        self.in_flight -= 1
        if ticket.charged != ticket.settled:
            self._buckets[ticket.bucket].settle(ticket.charged, ticket.settled, now, utc=utc)
        if not ticket.logged:
            return
        usage = ticket.usage if ticket.executed else None
        cost: int | None = 0
        if ticket.billed and usage is not None:
            cost = self._price(ticket.model or "", usage) if self._price is not None else None
        self.audit.add(
            Record(
                time=ticket.time,
                now=ticket.now,
                seconds=now - ticket.now,
                request_id=ticket.request_id,
                client_request_id=ticket.client_request_id,
                model=ticket.model,
                status=None if script.ending in ("refuse", "reset_before", "stall_before") else script.status,
                fault=ticket.fault,
                executed=ticket.executed,
                billed=ticket.billed,
                delivered=delivered,
                input_tokens=None if usage is None else usage.input_tokens,
                output_tokens=None if usage is None else usage.output_tokens,
                cost_pico=cost,
                prompt_digest=ticket.digest,
                account=ticket.account,
            )
        )

    def summary(self) -> dict[str, object]:
        """The audit's totals, and what is in flight right now."""
        return {**self.audit.summary(), "in_flight": self.in_flight}

    # The door: what happens before a request is a question to a model.

    def _stranger(self, dialect: Dialect, headers: Mapping[str, str]) -> Problem | None:
        keys = self.settings.keys
        if keys is None:
            return None
        key = dialect.key(headers)
        if not key:
            return Problem(name="no_key", details={})
        # Real servers show the ends of a wrong key; enough to test that texts of others are scrubbed.
        return None if key in keys else Problem(name="401", details={"key": key if len(key) < 12 else f"{key[:3]}***{key[-4:]}"})

    def _aside(self, request: Aside, ticket: Ticket, utc: float) -> Script | None:
        """What a dialect answers without a model; None when it is nobody's."""
        found = next((found for aside in ASIDES if (found := aside(request)) is not None), None)
        if found is None:
            return None
        ticket.logged = False
        dialect, answer = found
        answer = self._stranger(dialect, request.headers) or answer
        if isinstance(answer, Problem):
            return self._invalid(dialect, ticket, utc, answer)
        return self._error(dialect, ticket, answer, None, 0.0)

    def _served(self, call: HttpCall, path: str, headers: Mapping[str, str], ticket: Ticket, utc: float) -> Script | None:
        """What Ollama answers without a model; None when a model is asked, or nothing is there."""
        dialect = self._routes["/api/chat"]
        request = Aside(method=call.method, path=path, query={}, headers=headers, body=call.body, models=self.settings.models)
        # The bare address is for health checks, which have no key.
        stranger = self._stranger(dialect, headers) if path else None
        found = stranger or self._desk.answer(request, utc)
        if path in self._routes and (stranger is not None or found is None):
            return None
        ticket.logged = False
        if found is None:
            found = Problem(name="unknown_url", details={})
        if isinstance(found, Problem):
            return self._invalid(dialect, ticket, utc, found)
        chunks = (Chunk(data=b""),) if call.method == "HEAD" else found.chunks
        length = len(chunks[0].data) if len(chunks) == 1 else None
        return Script(ticket=ticket, status=found.status, headers={"content-type": found.kind}, chunks=chunks, content_length=length)

    def _other(self, method: str, path: str, headers: Mapping[str, str], ticket: Ticket, utc: float) -> Script:
        """`/v1/models` and everything that does not exist."""
        ticket.logged = False
        start = "/v1/models" if path.startswith("/v1/models") else "/models"
        if path != start and not path.startswith(start + "/"):
            return self._invalid(_OPENAI, ticket, utc, Problem(name="unknown_url", details={"method": method, "path": path}))
        if method != "GET":
            return self._invalid(_OPENAI, ticket, utc, Problem(name="method", details={"method": method, "path": path}))
        if (problem := self._stranger(_OPENAI, headers)) is not None:
            return self._invalid(_OPENAI, ticket, utc, problem)
        one = unquote(path[len(start) + 1 :]) or None
        names = self.settings.models
        if names is None:
            # Every name is a model here; the list shows two, and any single one that is asked for.
            names = DEFAULT_MODELS if one is None else (one,)
        body = _OPENAI.models(names, one)
        if body is None:
            return self._invalid(_OPENAI, ticket, utc, Problem(name="model_not_found", details={}, model=one))
        return self._whole(ticket, 200, _OPENAI.headers(ticket.request_id, seconds=0.0, utc=utc, buckets=None), body)

    def _invalid(self, dialect: Dialect, ticket: Ticket, utc: float, problem: Problem) -> Script:
        """The client's own mistake: nothing is executed."""
        ticket.fault = "invalid"
        error = dialect.error(problem.name, model=problem.model, utc=utc, details={**problem.details, "request_id": ticket.request_id})
        return self._error(dialect, ticket, error, None, 0.0)

    def _failed(self, dialect: Dialect, ticket: Ticket, name: str, buckets: Buckets | None, seconds: float) -> Script:
        """An error by its name."""
        error = dialect.error(name, model=ticket.model, utc=ticket.time, details={"request_id": ticket.request_id})
        return self._error(dialect, ticket, error, buckets, seconds)

    # The desk: limits and luck.

    def _asked(self, dialect: Dialect, ask: Ask, ticket: Ticket, now: float, utc: float) -> Script:
        settings = self.settings
        ticket.model = ask.model
        ticket.digest = ask.digest[:8].hex()
        if settings.models is not None and ask.model not in settings.models and self._shelf.get(ask.model) is None:
            return self._invalid(dialect, ticket, utc, Problem(name="model_not_found", details={}, model=ask.model))
        wanted = ask.input_tokens + (ask.cap or 0)
        if wanted > settings.context_tokens:
            return self._invalid(
                dialect, ticket, utc, Problem(name="context_length", details={"window": settings.context_tokens, "tokens": wanted}, model=ask.model)
            )
        marked = marker(ask.last_text) if "[[sim:" in ask.last_text else None
        if marked is not None and marked.name not in BY_NAME:
            return self._invalid(dialect, ticket, utc, Problem(name="marker", details={"marker": marked.name}, model=ask.model))
        remember = settings.faults > 0 or marked is not None
        name = int.from_bytes(ask.digest[:8])
        seen = self._seen.get(name, 0) if remember else 0
        draw = Draw(b"fault/" + self._run + b"%d/" % seen + ask.digest) if self._chancy or marked is not None or ask.stream else _NO_DRAW
        latency = draw.log_normal(settings.latency_ms / 1000, settings.latency_sigma) if settings.latency_ms else 0.0
        fault = self._deck.draw(draw, stream=ask.stream) if settings.faults else None
        if marked is not None:
            asked_for = BY_NAME[marked.name]
            fits = asked_for.wire in ("any", "stream" if ask.stream else "plain")
            fault = asked_for if fits and (marked.times is None or seen < marked.times) else None
        if fault is not None and fault.name in dialect.without:
            fault = None

        buckets = self._bucket(dialect, ask.model, ticket, now) if self._limited else None
        if fault is None or not fault.door:
            if settings.concurrency is not None and self.in_flight > settings.concurrency:
                ticket.fault = "concurrency"
                return self._failed(dialect, ticket, "slots", buckets, 0.0)
            if buckets is not None:
                charge = self._charge(dialect, ask)
                refusal = buckets.admit(charge, now, utc=utc)
                if refusal is not None:
                    ticket.fault = "limit"
                    refused = dialect.refused(refusal, model=ask.model, hints=settings.wait_hints, request_id=ticket.request_id)
                    return self._error(dialect, ticket, refused, buckets, 0.0)
                ticket.charged = charge
        elif buckets is not None:
            buckets.refill(now, utc)  # for the headers
        if remember:
            self._seen[name] = seen + 1
        if fault is not None:
            ticket.fault = fault.name
            if fault.name == "refuse":
                return Script(ticket=ticket, status=0, ending="refuse")
        return self._worked(dialect, ask, ticket, fault=fault, draw=draw, buckets=buckets, latency=latency, utc=utc)

    def _accounting(self, dialect: Dialect) -> Accounting:
        return dialect.accounting if self.settings.accounting == "wire" else self.settings.accounting

    def _charge(self, dialect: Dialect, ask: Ask) -> Charge:
        output_cap = 0 if self.settings.charge == "real" else (DEFAULT_OUTPUT_CHARGE if ask.cap is None else ask.cap) * ask.choices
        return charge_at_start(self._accounting(dialect), input_tokens=ask.input_tokens, output_cap=output_cap)

    def _bucket(self, dialect: Dialect, model: str, ticket: Ticket, now: float) -> Buckets:
        accounting = self._accounting(dialect)
        scope = model if self.settings.scope == "model" else ""
        ticket.bucket = scope if accounting == "openai" else f"{accounting}:{scope}"
        if ticket.account is not None:
            ticket.bucket = f"{ticket.account}:{ticket.bucket}"
        buckets = self._buckets.get(ticket.bucket)
        if buckets is None:
            # A new model starts with full buckets; their clock is the simulator's.
            buckets = self._buckets[ticket.bucket] = Buckets(self.settings, now=now, accounting=accounting)
        return buckets

    # The work: an answer, and how it goes out.

    def _worked(
        self,
        dialect: Dialect,
        ask: Ask,
        ticket: Ticket,
        *,
        fault: FaultKind | None,
        draw: Draw,
        buckets: Buckets | None,
        latency: float,
        utc: float,
    ) -> Script:
        executed = fault is None or (fault.executed > 0 and draw.chance(fault.executed))
        if executed:
            answer = answers.compose(ask, self.settings.seed)
            if fault is not None:
                answer = answers.altered(ask, answer, fault.name)
            if ask.prefixes and not answer.usage.cached_input_tokens and not answer.usage.cache_write_tokens:
                usage = self._prefixes.used(ask.prefixes, answer.usage, now=ticket.now, ready=ticket.now + latency * delivery.FIRST_TOKEN_SHARE)
                answer = replace(answer, usage=usage)
            ticket.executed = ticket.billed = True
            ticket.usage = answer.usage
            if buckets is not None:
                ticket.settled = charge_at_end(self._accounting(dialect), answer.usage)
        if fault is not None:
            if fault.error:
                # A gateway gives up only after it has waited for the answer.
                seconds = latency if fault.executed == 1 else latency * _ERROR_SHARE
                return self._failed(dialect, ticket, fault.name, buckets, seconds)
            if fault.name == "reset":
                return Script(ticket=ticket, status=0, delay_seconds=latency, ending="reset_before")
            if not executed:
                # An answer that is none: a page, nothing, an error object under 200.
                return self._failed(dialect, ticket, fault.name, buckets, latency * _ERROR_SHARE)
        headers = dialect.headers(ticket.request_id, seconds=latency, utc=utc, buckets=buckets)
        name = None if fault is None else fault.name
        if ask.stream and name != "stream_plain":
            headers["content-type"] = dialect.stream_type()
            headers["cache-control"] = "no-cache"
            return delivery.streamed(ticket, headers, dialect.frames(ask, answer, utc=utc, fault=name), fault=name, seconds=latency, draw=draw)
        return delivery.plain(ticket, headers, dialect.body(ask, answer, utc=utc, fault=name), fault=name, seconds=latency)

    def _error(self, dialect: Dialect, ticket: Ticket, error: ErrorReply, buckets: Buckets | None, seconds: float) -> Script:
        if "server" in error.headers:  # a gateway in front, which knows nothing of the provider's headers
            headers = dict(error.headers)
        else:
            headers = {**dialect.headers(ticket.request_id, seconds=seconds, utc=ticket.time, buckets=buckets), **error.headers}
        return self._whole(ticket, error.status, headers, error.body, seconds)

    @staticmethod
    def _whole(ticket: Ticket, status: int, headers: Mapping[str, str], body: bytes, seconds: float = 0.0) -> Script:
        return Script(ticket=ticket, status=status, headers=headers, delay_seconds=seconds, chunks=(Chunk(data=body),), content_length=len(body))
