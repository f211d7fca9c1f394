"""Alerts reach a command and a webhook, hold no secret, and never hold the run up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchllm.core.events import Alert, Note
from batchllm.engine.alerts import Tellers
from batchllm.transport.http import HttpTransport

ALERT = Alert(job="t", budget="budget.usd_per_day", fraction=0.5, used=1.25, cap=2.0, unit="usd", text="50% of the budget of $2.00 a day is spent")


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A loopback server that remembers what it is told; a path of digits is its answer's status."""
    heard: list[dict[str, Any]] = []

    class Heard(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Heard)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def tell(*, command: str | None = None, webhook: str | None = None) -> tuple[list[str], float]:
    """Tells the alert; what the run then says of it, and the seconds that its end waits."""
    notes: list[str] = []

    async def main() -> float:
        transport = HttpTransport()
        tellers = Tellers(
            command=command,
            webhook=webhook,
            environ={"PATH": "/usr/bin:/bin", "SECRET_KEY": "sk-1234", "OTHER": "seen"},
            secrets=["SECRET_KEY"],
            transport=lambda: transport,
            listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
        )
        began = time.monotonic()
        tellers.tell([ALERT])
        assert time.monotonic() - began < 0.5
        await tellers.finish()
        await transport.close()
        return time.monotonic() - began

    return notes, asyncio.run(main())


def test_a_command_gets_the_alert_in_its_environment_and_no_key(tmp_path: Path) -> None:
    out = tmp_path / "env"
    notes, _ = tell(command=f"env > {out}")
    told = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
    assert notes == []
    assert {name: told[f"BATCHLLM_ALERT_{name}"] for name in ("JOB", "BUDGET", "FRACTION", "USED", "CAP", "UNIT", "TEXT")} == {
        "JOB": "t",
        "BUDGET": "budget.usd_per_day",
        "FRACTION": "0.5",
        "USED": "1.25",
        "CAP": "2.0",
        "UNIT": "usd",
        "TEXT": ALERT.text,
    }
    assert told["OTHER"] == "seen"
    assert "SECRET_KEY" not in told


def test_a_webhook_gets_the_alert_as_json(hook: tuple[str, list[dict[str, Any]]]) -> None:
    url, heard = hook
    assert tell(webhook=f"{url}/200")[0] == []
    assert heard == [{"job": "t", "budget": "budget.usd_per_day", "fraction": 0.5, "used": 1.25, "cap": 2.0, "unit": "usd", "text": ALERT.text}]
    assert tell(webhook=f"{url}/500")[0] == ["budget.alert_webhook: the alert was not told: HTTP 500"]


def test_who_hangs_or_fails_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchllm.engine.alerts._LAST_SECONDS", 0.2)
    notes, seconds = tell(command="exec sleep 60")
    assert (notes, seconds < 5) == ([], True)
    assert tell(command="exit 7")[0] == ["budget.alert_command: the alert was not told: the command ended with exit status 7"]
