"""The turns of a row whose model calls functions of the program: the calls are made, and their results are the next request's last messages.

Every turn is an attempt like any other: reserved, journalled, settled. What is not kept is the conversation: a row that is cut half-way begins anew in the next
run, so its turns may be paid for, and its functions called, once more.

Traps: a thread can't be cancelled, so one that hangs is left behind and only so many may; a run that stops waits for no function; and whatever a function
raises, its model hears one line of it - no traceback, no secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from batchllm.admit import Closed
from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.events import Listener, Note
from batchllm.core.nouns import Code, Reply, Request, RowError
from batchllm.core.secret import Scrubber
from batchllm.core.tools import Tool, Toolkit
from batchllm.engine.stop import Stopper

if TYPE_CHECKING:
    import sqlite3

    from batchllm.engine.context import Context
    from batchllm.engine.lane import Lane
    from batchllm.spec import JobSpec

_THREADS = 64
"""Functions that run in threads at a time; as many again may hang."""
_MESSAGE_CHARACTERS = 500
_OK_STATUS = 200


class ToolLoop:
    """One per run that has functions."""

    def __init__(self, toolkit: Toolkit, *, scrubber: Scrubber, stopper: Stopper, listener: Listener, inline: bool) -> None:
        """`inline`: plain functions run in the loop's thread (virtual time)."""
        self._toolkit = toolkit
        self._scrubber = scrubber
        self._stopper = stopper
        self._listener = listener
        self._inline = inline
        self._room = asyncio.Semaphore(_THREADS)
        self._hung = 0
        self._told: set[tuple[str, str]] = set()

    def goes_on(self, reply: Reply, request: Request) -> bool:
        """Whether an answer is a turn and not yet the row's answer: it calls functions, and none that only the request itself declares."""
        if not reply.tool_calls:
            return False
        for call in reply.tool_calls:
            name = _name(call)
            if name is None or (name not in self._toolkit.tools and name in _declared(request)):
                return False
        return True

    def problem(self, turn: int) -> RowError | None:
        """What is wrong with one turn more; `turn` counts them from 1."""
        most = self._toolkit.turns
        if turn < most:
            return None
        words = f"the model still called tools in turn {turn} of {most}: raise `turns` of the tools, or help the prompt to come to an end"
        return RowError(code=Code.TOOL_TURNS, message=words, http_status=_OK_STATUS)

    async def next(self, run: Context, lane: Lane, request: Request, reply: Reply) -> Request:
        """Makes the calls of a turn, all at once, and returns the next request. Raises Closed when the run stops; the row holds no place meanwhile."""
        if self._stopper.stop is not None:
            raise Closed
        calls = [_read(call, place) for place, call in enumerate(reply.tool_calls)]
        lane.parked += 1
        run.spawn(lane)
        try:
            results = await self._together([self._answer(call) for call in calls])
        finally:
            lane.parked -= 1
        said = {"role": "assistant", "content": reply.text, "tool_calls": [call.said for call in calls]}
        told = [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, results, strict=True)]
        params = request.params
        if params.get("tool_choice") == "required" or isinstance(params.get("tool_choice"), Mapping):
            # A call that is forced every time would never let the model answer.
            params = {**params, "tool_choice": "auto"}
        return replace(request, messages=(*request.messages, said, *told), params=params)

    async def _together(self, calls: Sequence[Coroutine[Any, Any, str]]) -> list[str]:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(call) for call in calls]
        everything = loop.create_task(asyncio.wait(tasks))
        stopped = loop.create_task(self._stopper.wait())
        try:
            await asyncio.wait((everything, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                raise Closed
            return [task.result() for task in tasks]
        finally:
            for task in (everything, stopped, *tasks):
                task.cancel()
            await asyncio.wait(tasks)

    async def _answer(self, call: _Call) -> str:
        """What the model is told about one of its calls. Never raises for what the function did."""
        name = call.name
        tool = self._toolkit.tools.get(name)
        if tool is None:
            return _error(f"there is no tool {name!r}; there are: {', '.join(self._toolkit.tools)}")
        try:
            arguments = tool.read(call.arguments)
        except ValueError as error:
            return _error(f"invalid arguments: {error}")
        try:
            return _text(await self._call(tool, arguments))
        except _NoResult as error:
            return self._failed(name, str(error), str(error))
        except Exception as error:  # noqa: BLE001 - whatever a function of the program raises is an answer to the model
            words = str(error)
            return self._failed(name, type(error).__name__, f"{type(error).__name__}: {words}" if words else type(error).__name__)

    def _failed(self, name: str, kind: str, words: str) -> str:
        words = self._scrubber.text(words)[:_MESSAGE_CHARACTERS]
        if (name, kind) not in self._told:
            self._told.add((name, kind))
            self._listener(Note(level="warning", text=f"tool {name}: {words} (the model is told; further ones like this are not shown)"))
        return _error(words)

    async def _call(self, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        """The function's result. Raises what it raises, and _NoResult."""
        if tool.is_async:
            return await self._in_time(_awaited(tool.call(**arguments)))
        if self._inline:
            found = tool.call(**arguments)
        else:
            async with self._room:
                if self._hung >= _THREADS:
                    raise _NoResult("earlier calls of tools never came back, so this one was not made")
                found = await self._in_time(self._threaded(lambda: tool.call(**arguments)))
        return await self._in_time(_awaited(found)) if inspect.isawaitable(found) else found

    async def _in_time(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Waits for it so long, and not a moment longer for one that takes no notice of being cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            await asyncio.wait((task,), timeout=self._toolkit.timeout_seconds)
            if not task.done():
                raise _NoResult(f"no result within {self._toolkit.timeout_seconds:g} seconds")
            if task.cancelled():
                raise _NoResult("the call was cancelled")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_look)

    async def _threaded(self, call: Callable[[], Any]) -> Any:
        """Runs it in a thread of its own, which ends with the process if it never comes back."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        left = False

        def end(result: Any, error: BaseException | None) -> None:
            if left:
                self._hung -= 1
            elif not done.done():
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(
                        error
                        if isinstance(error, Exception) and not isinstance(error, StopIteration)
                        else _NoResult(f"{type(error).__name__}: {error}")
                    )

        def work() -> None:
            result, raised = None, None
            try:
                result = context.run(call)
            except BaseException as error:  # noqa: BLE001 - it goes to who waits for it
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, result, raised)

        threading.Thread(target=work, name="batchllm-tool", daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            left = True
            self._hung += 1
            raise


def tool_names(spec: JobSpec) -> dict[str, list[str]]:
    """What a run's record keeps of its functions."""
    return {"tools": list(spec.toolkit.tools)} if spec.toolkit is not None else {}


def check_same_tools(connection: sqlite3.Connection, spec: JobSpec) -> None:
    """A job that was begun by a program with functions can't go on without them: its rows would end in calls that nobody makes. Raises SpecError."""
    if spec.toolkit is not None:
        return
    last = connection.execute("SELECT options FROM runs ORDER BY run DESC LIMIT 1").fetchone()
    had = json.loads(last[0]).get("tools", ()) if last is not None else ()
    declared = {function["name"] for function in _functions(spec.request)}
    missing = [name for name in had if name in declared]
    if missing:
        words = f"the job's last run had functions of a program ({', '.join(missing)}), which this one has not: run it from that program again"
        raise SpecError(Problem(path="request.tools", message=words))


class _NoResult(Exception):  # noqa: N818 - a state; the text says which
    """A call that neither returned nor raised, as far as can be told."""


async def _awaited(found: Any) -> Any:
    return await found


def _look(task: asyncio.Task[Any]) -> None:
    """Looks at the end of a call that nobody waits for, so that nobody is told that it was never looked at."""
    if not task.cancelled():
        task.exception()


def _name(call: Mapping[str, Any]) -> str | None:
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def _declared(request: Request) -> set[str]:
    """Functions that the request itself tells of."""
    return {function["name"] for function in _functions(request.params)}


def _functions(params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tools = params.get("tools")
    functions = [tool.get("function", tool) for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list | tuple) else []
    return [function for function in functions if isinstance(function, Mapping) and isinstance(function.get("name"), str)]


class _Call(NamedTuple):
    """One call of a turn."""

    name: str
    arguments: str
    """As the model wrote them."""
    id: str
    said: Mapping[str, Any]
    """The call as it goes back to the model."""


def _read(call: Mapping[str, Any], place: int) -> _Call:
    """The call goes back unchanged (it may carry a signature of the model's thoughts), but with an id, and with arguments that every wire can take."""
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.text({} if arguments is None else arguments)
    call_id = call.get("id")
    if not isinstance(call_id, str) or not call_id:
        call_id = f"call_{place + 1}"
    if call_id != call.get("id") or text is not arguments or not _is_object(text):
        call = {**call, "id": call_id, "function": {**function, "arguments": text if _is_object(text) else "{}"}}
    return _Call(function["name"], text, call_id, call)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def _error(words: str) -> str:
    return json.text({"error": words})


def _text(value: Any) -> str:
    """A result as the model reads it: a text as it is, anything else as JSON. Raises TypeError for what is neither."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        raise TypeError(f"the tool's result can't be written as JSON ({error})") from None


def _plain(value: Any) -> Any:
    """What JSON has no form for: pydantic's models, sets, numbers and paths of other kinds."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, Decimal | PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON type")
