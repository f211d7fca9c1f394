"""The world of a story test: a folder with a job, `batchllm` as real processes, and a simulator or a stub server on loopback.

The trap is what outlives a test: every process that is started here dies with its `World`, and nothing of the machine's environment (keys, proxies) leaks in.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30.0
"""How long anything may take before the test fails; never how long it should."""
COMMAND = (sys.executable, "-m", "batchllm")
VOLATILE = ("attempts", "latency_seconds", "cost_usd")
"""Fields of a result that a crash may change (guarantee 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The object of `--json`, from stdout's last line."""
        return json.loads(self.out.splitlines()[-1])

    def expect(self, code: int) -> Ended:
        """The same, if it ended with this code, without a traceback."""
        assert self.code == code, f"exit {self.code} instead of {code}\n--- stderr\n{self.err}\n--- stdout\n{self.out[-2000:]}"
        assert "Traceback" not in self.err, self.err
        return self


class Process:
    """A running `batchllm`."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.pid = popen.pid

    def end(self, *, text: str | None = None) -> Ended:
        """Waits for its end."""
        out, err = self.popen.communicate(input=text, timeout=PATIENCE_SECONDS)
        return Ended(code=self.popen.returncode, out=out or "", err=err or "")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """`kill -9`, and gone when this returns."""
        self.popen.kill()
        self.popen.communicate(timeout=PATIENCE_SECONDS)

    @property
    def running(self) -> bool:
        return self.popen.poll() is None


class World:
    """A folder, the processes started for it, and what they left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The state is beside the folder: what a run leaves in it is looked at.
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "BATCHLLM_STATE": str(folder.with_name(f"{folder.name}.state")),
        }
        self._started: list[subprocess.Popen[str]] = []

    python = sys.executable

    # What a user writes.

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rows(self, count: int, *, name: str = "rows.jsonl", start: int = 0) -> Path:
        """Rows whose answers are short and all different."""
        return self.write(name, "".join(f'{{"custom_id": "r{n}", "q": "question number {n}"}}\n' for n in range(start, start + count)))

    def job(self, url: str | None, *, name: str = "job", model: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        """A job file of one model at this base URL (None: simulated, in the run's own process)."""
        if url is None:
            deployment: dict[str, Any] = {"provider": "simulated", "model": "gpt-6-luna"}
        else:
            deployment = {"provider": "openai", "model": "gpt-6-luna", "base_url": url, "api_key_env": "none"}
        spec = {
            "input": "rows.jsonl",
            "prompt": "Answer: {{ q }}",
            "request": {"max_tokens": 30},
            "models": {"m": {**deployment, **(model or {})}},
            **keys,
        }
        return self.write(f"{name}.yaml", json.dumps(spec, indent=1))

    # Processes.

    def start(
        self,
        *args: str | Path,
        stdin: int | None = subprocess.DEVNULL,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> Process:
        """Starts `batchllm ARGS` in the folder."""
        process = subprocess.Popen(
            [*prefix, *COMMAND, *(str(arg) for arg in args)],
            cwd=self.folder,
            env={**self.environ, **(env or {})},
            text=True,
            **{"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen},
        )
        self._started.append(process)
        return Process(process)

    def run(self, *args: str | Path, text: str | None = None, **more: Any) -> Ended:
        """Runs `batchllm ARGS` to its end; `text` goes to its stdin."""
        return self.start(*args, stdin=subprocess.DEVNULL if text is None else subprocess.PIPE, **more).end(text=text)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            # Also closes the pipes.
            process.communicate(timeout=PATIENCE_SECONDS)

    # What they left.

    def results(self, name: str = "job") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.results.jsonl").read_text().splitlines()]

    def ask(self, query: str, *values: object, name: str = "job") -> list[tuple[Any, ...]]:
        """Rows of a query on the store."""
        with closing(sqlite3.connect(f"file:{self.folder / name}.db?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    def left(self) -> set[str]:
        """Names of the files in the folder."""
        return {path.name for path in self.folder.iterdir()}


class SimulatorProcess:
    """`batchllm simulate` in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process
        stderr = process.popen.stderr
        assert stderr is not None
        line = stderr.readline()
        assert line.startswith("simulator on "), line + stderr.read()
        self.url = line.split()[2]
        self._root = self.url.removesuffix("/v1")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._root + path, timeout=PATIENCE_SECONDS) as response:
            return response.read()

    def audit(self) -> list[dict[str, Any]]:
        """What arrived, request by request."""
        return [json.loads(line) for line in self._get("/_audit").splitlines()]

    def totals(self) -> dict[str, Any]:
        return json.loads(self._get("/_audit/summary"))

    @property
    def requests(self) -> int:
        return self.totals()["requests"]


def simulator(world: World, **options: object) -> SimulatorProcess:
    """Starts a simulator; `latency_ms=30` is `--latency-ms 30`."""
    flags = [word for name, value in {"port": 0, **options}.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return SimulatorProcess(world.start("simulate", *flags))


def until(condition: Callable[[], object], *, what: str, every_seconds: float = 0.01) -> None:
    """Polls until the condition holds; fails after `PATIENCE_SECONDS`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(every_seconds)


def steady(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without the fields that a crash may change."""
    return [{key: value for key, value in line.items() if key not in VOLATILE} for line in results]


def answer(text: str = "fine", *, model: str = "gpt-6-luna") -> bytes:
    """A body of a chat completion."""
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a stub server answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    type: str = "application/json"


@dataclass(slots=True, kw_only=True)
class Asked:
    """What a stub server was asked."""

    number: int
    """From 1."""
    headers: Mapping[str, str]
    text: str
    """Content of the last message."""
    at: float


@contextmanager
def stub(reply: Callable[[Asked], Said]) -> Iterator[tuple[str, list[Asked]]]:
    """A server on loopback that answers every POST by `reply`: its base URL, and what it was asked."""
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Buffered, so that a reply leaves in one packet; two would wait for each other's acknowledgement.
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                one = Asked(number=len(asked) + 1, headers=dict(self.headers), text=body["messages"][-1]["content"], at=time.monotonic())
                asked.append(one)
                said = reply(one)
            self.send_response(said.status)
            for name, value in {"content-type": said.type, "content-length": str(len(said.body)), **(said.headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
