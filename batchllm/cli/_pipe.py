"""`run --input - --results -`: results on stdout while rows still come in, one line for every line given, in the order given, each after its commit.

A line waits for those before it, so that the output is the input's image. The traps: a slow reader must not block the loop (a thread of its own writes), nor fill the
memory (the run is held back while many lines are unwritten), and a row that takes an hour must not, either: lines that wait behind it are read from the store again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from batchllm.core import json
from batchllm.core.nouns import Result
from batchllm.store.read import StoreReader

if TYPE_CHECKING:
    from batchllm.engine.control import Control

_BEHIND = 500
"""Lines that the reader may be behind."""
_WAITING = 5_000
"""Results that are kept in memory behind a row that isn't finished."""
_GONE = "the reader of the results has gone; every answer so far is in the store, and the same lines go on from there"


class Pipe:
    """Hears what the run meets and commits (in its loop), and writes in a thread."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        """Why stdout takes no more."""
        self._expected: deque[int] = deque()
        self._ready: dict[int, bytes | None] = {}
        self._lines: queue.SimpleQueue[bytes | int | None] = queue.SimpleQueue()
        self._unwritten = 0
        self._control: Control | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write, name="batchllm-results", daemon=True)

    # What the run calls.

    async def started(self, control: Control) -> None:
        """Before the first row is read."""
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def met(self, positions: list[int]) -> None:
        """Rows of the input, in the order given."""
        self._expected.extend(positions)

    def came(self, results: Iterable[Result]) -> None:
        """Results that are committed, now or by an earlier run."""
        for result in results:
            self._ready[result.row] = json.dumps(result.as_dict()) + b"\n" if len(self._ready) < _WAITING else None
        self._hand_over()

    def _hand_over(self) -> None:
        while self._expected and self._expected[0] in self._ready:
            position = self._expected.popleft()
            line = self._ready.pop(position)
            self._unwritten += 1
            self._lines.put(position if line is None else line)
        if self._unwritten >= _BEHIND and self._control is not None and self.error is None:
            self._control.hold()

    def _written(self, lines: int) -> None:
        self._unwritten -= lines
        if self._control is not None and self._control.held and self._unwritten < _BEHIND // 2:
            self._control.release()

    def _lost(self) -> None:
        if self._control is not None:
            self._control.release()
            if not self._control.stopped:
                self._control.stop(message=_GONE)

    def close(self) -> None:
        """After the run: what waits behind rows that weren't finished is written, too. Raises OSError when stdout didn't take everything."""
        self._control = self._loop = None
        for position in self._expected:
            if position in self._ready:
                line = self._ready.pop(position)
                self._lines.put(position if line is None else line)
        self._lines.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        if self.error is not None:
            raise self.error

    # The thread.

    def _write(self) -> None:
        out = sys.stdout.buffer
        store = self._control.store if self._control is not None else None
        reader: StoreReader | None = None
        try:
            while (line := self._lines.get()) is not None:
                if isinstance(line, int):
                    assert store is not None
                    reader = reader or StoreReader(store)
                    line = b"".join(json.dumps(result.as_dict()) + b"\n" for result in reader.results("row = ?", (line,)))
                if self.error is None:
                    try:
                        out.write(line)
                        if self._lines.empty():
                            out.flush()
                    except OSError as error:
                        self.error = error
                        self._tell(self._lost)
                self._tell(self._written, 1)
            if self.error is None:
                out.flush()
        except OSError as error:
            self.error = error
        finally:
            if reader is not None:
                reader.connection.close()

    def _tell(self, call: object, *values: object) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended in this moment
                loop.call_soon_threadsafe(call, *values)  # type: ignore[arg-type]  # one of this class's own methods
