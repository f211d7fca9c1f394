"""Asking a running job from a second terminal, through its local socket. Whether one runs is told by the store's lock, never by the socket's file.

A run that starts or ends holds the lock without listening: it is asked again for a moment. Both sides look who is at the other end.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any, Self

import click

from batchllm.cli._job import Job
from batchllm.core import json
from batchllm.core.errors import SpecError, StoreError

PATIENCE_SECONDS = 2.0
"""How long a run that doesn't listen is given."""
_ANSWER_SECONDS = 60.0
"""For one answer: a commit on a busy disk takes its time."""
_PAUSE_SECONDS = 0.05


class Running:
    """A job's run, as seen from another process; a context manager."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._job = job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lines.close()
        self._connection.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The run's answer. Raises SpecError or StoreError with the run's words when nothing was done."""
        try:
            self._connection.sendall(json.dumps(request) + b"\n")
            line = self._lines.readline()
        except TimeoutError:
            raise StoreError(f"{self._job.store}: the run doesn't answer (is its disk busy?); look with: batchllm status {self._job.words}") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise StoreError(f"{self._job.store}: the run ended before it answered; look with: batchllm status {self._job.words}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise (SpecError if answer.get("exit_code") == SpecError.exit_code else StoreError)(answer["problem"])
        return answer


def reach(found: Job) -> Running | None:
    """The run that holds the job; None when none does, or none that listens. Raises StoreError for another job's store."""
    from batchllm.store import is_locked

    end = time.monotonic() + PATIENCE_SECONDS
    while is_locked(found.store) is not None:
        connection = _connected(found.store)
        if connection is not None:
            running = Running(connection, found)
            try:
                found.read().connection.close()
            except BaseException:
                running.__exit__()
                raise
            return running
        if time.monotonic() > end:
            return None
        time.sleep(_PAUSE_SECONDS)
    return None


def steer(found: Job, request: dict[str, Any]) -> None:
    """Asks, and shows the answer. Raises SpecError (exit 2) when no run holds the job, StoreError (5) when it can't be asked."""
    from batchllm.store import is_locked

    running = reach(found)
    if running is None:
        pid = is_locked(found.store)
        if pid is None:
            raise SpecError(
                f"{found.store}: no run is at work on this job, so there is nothing to {request['do']}; start it with `batchllm run {found.words}`"
            )
        raise StoreError(
            f"{found.store}: in use by process {pid or 'unknown'}, which can't be asked: it is starting, ending, or another command; try again"
        )
    with running:
        for line in running.ask(request)["said"]:
            click.echo(line, err=True)


def _connected(store: Path) -> socket.socket | None:
    from batchllm.store.address import addresses, is_mine, is_same_user

    for address in addresses(store):
        if not is_mine(address):
            continue
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(_ANSWER_SECONDS)
            with contextlib.suppress(OSError):
                connection.connect(str(address))
                if is_same_user(connection):
                    stack.pop_all()
                    return connection
    return None
