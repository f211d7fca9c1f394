"""The input, chunk by chunk, without holding anything else up: files are read in a worker thread, a stream in one that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import anyio.to_thread

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Row
from batchllm.engine.source import Source
from batchllm.engine.stop import Stop, Stopper


class Reader:
    """One reading, from the input's beginning."""

    def __init__(self, source: Source, stopper: Stopper, *, inline: bool) -> None:
        """`inline`: without threads, for virtual time."""
        self._chunks = source.chunks()
        self._is_stream = source.is_stream
        self._stopper = stopper
        self._inline = inline

    async def next(self) -> list[Row] | None:
        """The next chunk; None at the end, when the run stops meanwhile, and where the input is damaged, which stops the run."""
        try:
            if self._inline:
                return next(self._chunks, None)
            if self._is_stream:
                return await self._next_of_stream()
            return await anyio.to_thread.run_sync(lambda: next(self._chunks, None), abandon_on_cancel=True)
        except SpecError as error:
            # A damaged file: what was read before that point is worked on, and the run says where it broke.
            self._stopper.set(Stop(exit_code=2, stopped_by=None, message=str(error)))
            return None

    async def _next_of_stream(self) -> list[Row] | None:
        """From a thread that nobody waits for: a pipe may be silent for hours, and Ctrl-C must not wait for its next line."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[list[Row] | None] = loop.create_future()

        def tell(rows: list[Row] | None, error: BaseException | None) -> None:
            if not came.done():
                came.set_exception(error) if error is not None else came.set_result(rows)

        def pull() -> None:
            rows, failure = None, None
            try:
                rows = next(self._chunks, None)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the rows
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, rows, failure)

        threading.Thread(target=pull, name="batchllm-stream", daemon=True).start()
        stopped = asyncio.ensure_future(self._stopper.wait())
        try:
            await asyncio.wait((came, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return came.result() if came.done() else None
