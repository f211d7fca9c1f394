"""How a right answer goes out, or goes wrong on its way: pauses, pieces, and where the connection ends."""

from __future__ import annotations

import gzip

from batchllm.simulator.draw import Draw
from batchllm.simulator.script import Chunk, Ending, Script, Ticket

_DRIP_PIECES = 8
_DRIP_SECONDS = 0.125
FIRST_TOKEN_SHARE = 0.3
_ENDINGS: dict[str | None, Ending] = {
    "stall": "stall_before",
    "stall_mid": "stall_mid",
    "reset_mid": "reset_mid",
    "short_body": "close_early",
    "close_idle": "complete_close",
    "stream_stall_comments": "stall_mid",
}
_HALVED = frozenset({"stall_mid", "reset_mid", "short_body"})
_KEEP_ALIVE_SECONDS = 0.5
_KEEP_ALIVE = b": keep-alive\n\n"


def plain(ticket: Ticket, headers: dict[str, str], body: bytes, *, fault: str | None, seconds: float) -> Script:
    """A body in one piece. `seconds` is the time until it is ready."""
    match fault:
        case "half_json":
            body = body[: len(body) // 2]
        case "gzip":
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["content-encoding"] = "gzip"
        case "padding":
            body = b"\n \n\n" + body
    length = len(body)
    if fault in _HALVED:
        chunks: tuple[Chunk, ...] = (Chunk(data=body[: length // 2]),)
    elif fault == "slow_drip":
        step = -(-length // _DRIP_PIECES)
        chunks = tuple(Chunk(data=body[at : at + step], delay_seconds=_DRIP_SECONDS) for at in range(0, length, step))
    else:
        chunks = (Chunk(data=body),)
    return Script(
        ticket=ticket,
        headers=headers,
        delay_seconds=seconds,
        chunks=chunks,
        ending=_ENDINGS.get(fault, "complete"),
        content_length=length,
    )


def streamed(ticket: Ticket, headers: dict[str, str], frames: list[bytes], *, fault: str | None, seconds: float, draw: Draw) -> Script:
    """Frames over time: the first after its share of the seconds (time to the first token), the others evenly over the rest (a frame is about a token)."""
    comment = _KEEP_ALIVE if headers["content-type"].startswith("text/event-stream") else b"\n"
    match fault:
        case "stream_comments":
            frames = [part for frame in frames for part in (comment, frame)]
        case "padding":
            frames = [b"\n\n\n", *frames]
        case "stream_split":
            frames = _split(b"".join(frames), draw)
        case "stream_cut":
            frames = frames[: max(len(frames) // 2, 1)]
            frames[-1] = frames[-1][: len(frames[-1]) // 2]
    pause = seconds * (1 - FIRST_TOKEN_SHARE) / max(len(frames) - 1, 1)
    if fault == "slow_drip":
        pause = max(pause, _DRIP_PIECES * _DRIP_SECONDS / max(len(frames), 1))
    if fault in _HALVED:
        frames = frames[: max(len(frames) // 2, 1)]
    return Script(
        ticket=ticket,
        headers=headers,
        delay_seconds=seconds * FIRST_TOKEN_SHARE,
        chunks=tuple(Chunk(data=frame, delay_seconds=pause if index else 0.0) for index, frame in enumerate(frames)),
        ending=_ENDINGS.get(fault, "complete"),
        keep_alive=Chunk(data=comment, delay_seconds=_KEEP_ALIVE_SECONDS) if fault == "stream_stall_comments" else None,
    )


def _split(data: bytes, draw: Draw) -> list[bytes]:
    """Cuts anywhere: inside of a character, of a line end, or several frames together."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = 1 + draw.below(400)
        pieces.append(data[at : at + size])
        at += size
    return pieces
