"""From a call to a run: what the flags mean, and the shell that lets the same engine run in a script, inside a running loop, and in any thread.

The trap is the signal: only the main thread may receive one, and only where no loop runs yet. In a notebook the run has a thread of its own while the main
thread waits, so Ctrl-C is taken there and handed over.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from batchllm.api.rows import AnyRows, ProgramRows, checked
from batchllm.api.tools import AnyTools, equipped, toolkit_of
from batchllm.core.clock import LoopClock
from batchllm.core.errors import SpecError
from batchllm.core.events import Event, Listener, Note
from batchllm.core.nouns import Code, Result
from batchllm.engine import Deps, RunOptions, Summary, run_job
from batchllm.engine.control import Control
from batchllm.share import state_folder
from batchllm.spec import JobSpec, load
from batchllm.spec.dotenv import environment

T = TypeVar("T")
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*$")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Flags(TypedDict, total=False):
    """What holds for one run only. Everything else is a key of the spec: `load(path, set={...})`."""

    limit: int | None
    """Only the first N rows."""
    sample: str | int | None
    """A sample of the rows, stable by id: "1%" or a number of rows."""
    retry_failed: bool | Iterable[str] | None
    """Failed rows to try again: True for all, or those with these codes."""
    simulate: bool
    """Every model simulated: no key, no cost, own store and results (`<name>.sim.*`)."""
    if_running: Literal["fail", "wait"]
    """When another run holds the store: StoreError, or wait for its end."""
    tools: AnyTools | None
    """Functions that the model may call, or `batchllm.Tools(...)` of them."""
    listener: Listener | None
    """Called with events (`core.events`); default: notes go to the logger `batchllm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run that was asked for."""

    spec: JobSpec
    options: RunOptions
    rows: ProgramRows | None
    """Rows that have to be read ahead."""
    listener: Listener


def log(event: Event) -> None:
    """The listener of who gave none: notes go to the logger `batchllm`."""
    if isinstance(event, Note):
        logging.getLogger("batchllm").log(_LEVELS[event.level], "%s", event.text)


def order(
    job: JobSpec | str | Path,
    rows: AnyRows | None = None,
    *,
    limit: int | None = None,
    sample: str | int | None = None,
    retry_failed: bool | Iterable[str] | None = None,
    simulate: bool = False,
    if_running: Literal["fail", "wait"] = "fail",
    tools: AnyTools | None = None,
    listener: Listener | None = None,
) -> Order:
    """What a call's arguments mean. Raises SpecError; nothing is opened or sent here."""
    spec = job if isinstance(job, JobSpec) else load(job)
    if tools is not None:
        spec = equipped(spec, toolkit_of(tools))
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise SpecError(f"limit: expected a number of rows from 1 on, got {limit!r}")
    if if_running not in {"fail", "wait"}:
        raise SpecError(f"if_running: expected 'fail' or 'wait', got {if_running!r}")
    fraction, count = _sample(sample)
    records: Sequence[Any] | ProgramRows | None = None
    if rows is not None:
        checked(rows)
        records = rows if isinstance(rows, Sequence) else ProgramRows(rows)
    options = RunOptions(
        limit=limit,
        sample_fraction=fraction,
        sample_count=count,
        retry_failed=_codes(retry_failed),
        if_running=if_running,
        records=records,
    )
    return Order(
        spec=spec.simulated() if simulate else spec,
        options=options,
        rows=records if isinstance(records, ProgramRows) else None,
        listener=listener or log,
    )


def _sample(sample: str | int | None) -> tuple[float | None, int | None]:
    if sample is None:
        return (None, None)
    percent = _PERCENT.match(sample) if isinstance(sample, str) else None
    if percent is not None and 0 < float(percent[1]) <= 100:
        return (float(percent[1]) / 100, None)
    if (isinstance(sample, int) or (isinstance(sample, str) and sample.isdecimal())) and int(sample) > 0:
        return (None, int(sample))
    raise SpecError(f"sample: expected a percentage such as '1%' or a number of rows, got {sample!r}")


def _codes(retry_failed: bool | Iterable[str] | None) -> frozenset[str] | None:
    if retry_failed is None or retry_failed is False:
        return None
    if retry_failed is True:
        return frozenset()
    codes = frozenset([retry_failed] if isinstance(retry_failed, str) else retry_failed)
    unknown = codes - {str(code) for code in Code}
    if unknown or not codes:
        raise SpecError(
            f"retry_failed: expected True or codes such as 'timeout', got {', '.join(sorted(unknown)) or 'none'}; codes are {', '.join(Code)}"
        )
    return codes


async def go(
    order: Order,
    *,
    signals: bool = False,
    on_start: Callable[[Control], Awaitable[None]] | None = None,
    on_result: Callable[[list[Result]], None] | None = None,
    on_known: Callable[[list[Result]], None] | None = None,
) -> Summary:
    """Runs it in the running loop."""
    rows = order.rows

    async def started(control: Control) -> None:
        if on_start is not None:
            await on_start(control)
        if rows is not None:
            rows.start(control)

    deps = Deps(
        clock=LoopClock(),
        environ=environment(order.spec.folder, os.environ) if order.spec.path is not None else os.environ,
        listener=order.listener,
        on_result=on_result,
        on_known=on_known,
        on_start=started,
        signals=signals,
        state=state_folder(os.environ),
    )
    try:
        summary = await run_job(order.spec, deps, order.options)
    finally:
        if rows is not None:
            await rows.close()
    if rows is not None and rows.error is not None:
        raise rows.error
    return summary


def blocking(asked: Order) -> Summary:
    """Runs it from code that isn't async, wherever that is. Ctrl-C drains and gives a summary with exit code 130; a second one raises KeyboardInterrupt."""
    if _in_loop():
        return _in_a_thread(asked)
    if threading.current_thread() is threading.main_thread():
        with _restored():
            return _run(go(asked, signals=True))
    return _run(go(asked))


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Gives the signals that a run listens to back to who had them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not set from Python and can't be set again
                signal.signal(number, handler)


class _Remote:
    """A run in another thread, seen from here."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._control: Control | None = None
        self._interrupts = 0

    async def main(self, asked: Order) -> Summary:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        return await go(asked, on_start=self._started)

    async def _started(self, control: Control) -> None:
        self._control = control
        if self._interrupts:
            self._act()

    def interrupt(self, *_: object) -> None:
        """Ctrl-C: the first drains, the second cancels."""
        self._interrupts += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it ended in this moment
                self._loop.call_soon_threadsafe(self._act)

    def _act(self) -> None:
        if self._interrupts > 1 and self._task is not None:
            self._task.cancel()
        elif self._control is not None:
            self._control.stop(message="interrupted by Ctrl-C; run again to continue", stopped_by="interrupt")


def _in_a_thread(asked: Order) -> Summary:
    remote = _Remote()
    future: concurrent.futures.Future[Summary] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(_run(remote.main(asked)))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            future.set_exception(error)

    thread = threading.Thread(target=work, name="batchllm-run")
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    if before is not None:
        signal.signal(signal.SIGINT, remote.interrupt)
    try:
        thread.start()
        thread.join()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    try:
        return future.result()
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        raise KeyboardInterrupt from None
