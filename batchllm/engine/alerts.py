"""Says so when a part of a budget is used (`budget.alerts`): once per fraction and window, and never again on a resume that begins above it.

The trap: whoever is told (a person's command, a webhook) may hang or fail. So telling is a task of its own with a time limit, the run waits for none of it, and
what it is told holds names and sums only: no key, no text of a row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from batchllm.admit import Allowance, Purse
from batchllm.core import json
from batchllm.core.events import Alert, Listener, Note
from batchllm.core.money import usd_from_pico
from batchllm.core.nouns import Fault
from batchllm.core.wire import HttpCall, Transport
from batchllm.engine.budgets import amount_words, cap_words

_TELL_SECONDS = 30.0
_LAST_SECONDS = 5.0
"""What the end of a run waits for those that are still being told."""


class Alerts:
    """Looked at a few times a second; pure arithmetic on the purses."""

    def __init__(self, fractions: Sequence[float], caps: Iterable[Allowance], listener: Listener, *, job: str) -> None:
        self._fractions = sorted(fractions)
        self._caps = list(caps)
        self._listener = listener
        self._job = job
        self._left: dict[str, tuple[Purse, list[float]]] = {}
        for cap in self._caps:
            self._begin(cap)

    def _begin(self, cap: Allowance) -> None:
        self._left[cap.name] = (cap.purse, [fraction for fraction in self._fractions if not _passed(cap, fraction)])

    def look(self) -> list[Alert]:
        """Tells, for each budget, the highest fraction that was newly passed."""
        alerts: list[Alert] = []
        for cap in self._caps:
            purse, left = self._left[cap.name]
            if purse is not cap.purse:
                # Another window: its first look is its beginning, but for what was spent since.
                self._left[cap.name] = (cap.purse, list(self._fractions))
                left = self._left[cap.name][1]
            passed = [fraction for fraction in left if _passed(cap, fraction)]
            if not passed:
                continue
            self._left[cap.name] = (cap.purse, [fraction for fraction in left if fraction not in passed])
            alerts.append(self._alert(cap, passed[-1]))
        for alert in alerts:
            self._listener(alert)
            self._listener(Note(level="warning", text=alert.text))
        return alerts

    def _alert(self, cap: Allowance, fraction: float) -> Alert:
        spent, size = cap.purse.spent_pico, cap.purse.cap_pico or 0
        verb = "used" if cap.of_tokens else "spent"
        name = "the budget" if cap.name == "budget.usd" else f"the {cap_words(cap)}"
        value: Callable[[int], float] = float if cap.of_tokens else usd_from_pico
        return Alert(
            job=self._job,
            budget=cap.name,
            fraction=fraction,
            used=value(spent),
            cap=value(size),
            unit="tokens" if cap.of_tokens else "usd",
            text=f"{fraction:.0%} of {name} is {verb}: {amount_words(cap, spent)} of {amount_words(cap, size)}",
        )


def _passed(cap: Allowance, fraction: float) -> bool:
    size = cap.purse.cap_pico
    return size is not None and size > 0 and cap.purse.spent_pico >= fraction * size


class Tellers:
    """Tells alerts to whoever the spec names: a command, a webhook."""

    def __init__(
        self,
        *,
        command: str | None,
        webhook: str | None,
        environ: Mapping[str, str],
        secrets: Iterable[str],
        transport: Callable[[], Transport],
        listener: Listener,
    ) -> None:
        """`secrets`: names of variables that a command needn't see. `transport` gives sockets when a webhook needs them."""
        self._by_command = command
        self._by_webhook = webhook
        hidden = set(secrets)
        self._environ = {name: value for name, value in environ.items() if name not in hidden}
        self._transport = transport
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, alerts: Iterable[Alert]) -> None:
        """Starts telling; never waits."""
        for alert in alerts:
            if self._by_command is not None:
                self._start("alert_command", self._command(self._by_command, alert))
            if self._by_webhook is not None:
                self._start("alert_webhook", self._webhook(self._by_webhook, alert))

    def _start(self, key: str, telling: Awaitable[str | None]) -> None:
        async def watched() -> None:
            problem: str | None
            try:
                problem = await asyncio.wait_for(telling, _TELL_SECONDS)
            except TimeoutError:
                problem = f"it took longer than {_TELL_SECONDS:.0f} s"
            except Exception as error:  # noqa: BLE001 - whatever a person's command does, the run goes on
                problem = f"{type(error).__name__}: {error}"
            if problem is not None:
                self._listener(Note(level="warning", text=f"budget.{key}: the alert was not told: {problem}"))

        task = asyncio.ensure_future(watched())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _command(self, command: str, alert: Alert) -> str | None:
        environ = {**self._environ, **{f"BATCHLLM_ALERT_{name.upper()}": str(value) for name, value in told(alert).items()}}
        process = await asyncio.create_subprocess_shell(
            command, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return None if code == 0 else f"the command ended with exit status {code}"

    async def _webhook(self, url: str, alert: Alert) -> str | None:
        call = HttpCall(url=url, body=json.text(told(alert)).encode(), headers={"content-type": "application/json"})
        reply = await self._transport().send(call, timeout_seconds=_TELL_SECONDS)
        if isinstance(reply, Fault):
            return reply.message
        return None if reply.status < 300 else f"HTTP {reply.status}"

    async def finish(self) -> None:
        """Gives those that are still being told a moment, then leaves them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def told(alert: Alert) -> dict[str, Any]:
    """What a command (as BATCHLLM_ALERT_...) and a webhook (as JSON) are told."""
    return {
        "job": alert.job,
        "budget": alert.budget,
        "fraction": alert.fraction,
        "used": alert.used,
        "cap": alert.cap,
        "unit": alert.unit,
        "text": alert.text,
    }
