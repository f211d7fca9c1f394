"""Requests/s and CPU of the whole engine against a bare aiohttp+uvloop loop, on the same loopback server, alternating; only the ratio means something.

    python benchmarks/throughput.py [--rows 20000] [--rounds 3] [--concurrency 256]

The engine runs with everything on: templates, rate limits, a USD cap, the journal committed (durability: full) before each send, bodies and results kept.
The shares come from sampling the event loop's thread every 2 ms in a round of its own, outside of the timed ones.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import aiohttp
import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1795000000,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 120}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 120, "total_tokens": 370},
    }
).encode()
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\nContent-Length: " + str(len(ANSWER)).encode() + b"\r\n\r\n" + ANSWER
)
PROMPT = "Judge the following text. " + "lorem ipsum dolor sit amet " * 36


class Server(asyncio.Protocol):
    """Answers every complete request with the same bytes; far faster than any client here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lower = self.buffer[:head].lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < head + 4 + length:
                return
            self.buffer = self.buffer[head + 4 + length :]
            self.transport.write(REPLY)


def serve(port: multiprocessing.Queue) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def bare(url: str, rows: int, concurrency: int) -> tuple[float, float]:
    """The reference: a ready body, a pool of workers, nothing else."""
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 200}).encode()
    left = iter(range(rows))

    async def work(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(f"{url}/chat/completions", data=body, headers={"Content-Type": "application/json"}) as response:
                json.loads(await response.read())

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(work(session) for _ in range(concurrency)))

    began, cpu = time.perf_counter(), cpu_seconds()
    uvloop.run(main())
    return rows / (time.perf_counter() - began), (cpu_seconds() - cpu) / rows * 1000


def engine(url: str, rows: int, concurrency: int, folder: Path, *, sample: bool = False) -> tuple[float, float, collections.Counter[str]]:
    """The product: one job from a JSONL file to results."""
    from batchllm.core.clock import LoopClock
    from batchllm.engine import Deps, RunOptions, run_job
    from batchllm.spec import build

    source = folder / "rows.jsonl"
    if not source.exists():
        text = PROMPT.removeprefix("Judge the following text. ")
        source.write_text("".join(json.dumps({"custom_id": f"row-{i}", "text": text}) + "\n" for i in range(rows)))
    for old in folder.glob("bench.*"):
        old.unlink()
    spec = build(
        {
            "name": "bench",
            "input": "rows.jsonl",
            "prompt": "Judge the following text. {{ text }}",
            "request": {"max_tokens": 200},
            "concurrency": concurrency,
            "models": {
                "m": {
                    "provider": "openai-compatible",
                    "model": "bench",
                    "base_url": url,
                    "api_key_env": "none",
                    "price": {"input": 0.1, "output": 0.4},
                    "limits": {"rpm": 100_000_000, "tpm": 100_000_000_000, "concurrency": concurrency},
                }
            },
            "budget": {"usd": 1000},
        },
        folder=folder,
    )
    shares: collections.Counter[str] = collections.Counter()
    done = threading.Event()
    main_thread = threading.get_ident()

    def watch() -> None:
        while not done.wait(0.002):
            frame = sys._current_frames().get(main_thread)  # noqa: SLF001 - a sampling profiler has no other door
            shares[_stage(frame)] += 1

    async def main() -> None:
        summary = await run_job(spec, Deps(clock=LoopClock(), environ=os.environ, rng=random.Random(0)), RunOptions())
        assert summary.exit_code == 0, summary
        assert summary.rows.ok == rows, summary

    if sample:
        threading.Thread(target=watch, daemon=True).start()
    began, cpu = time.perf_counter(), cpu_seconds()
    uvloop.run(main())
    seconds, used = time.perf_counter() - began, cpu_seconds() - cpu
    done.set()
    return rows / seconds, used / rows * 1000, shares


_STAGES = ("rows", "route", "tokens", "cost", "admit", "store", "providers", "retry", "transport", "export", "engine")


def _stage(frame: object) -> str:
    """The innermost room on the stack; what aiohttp does for the transport counts as the transport's."""
    while frame is not None:
        name = frame.f_code.co_filename
        if f"{os.sep}aiohttp{os.sep}" in name or f"{os.sep}yarl{os.sep}" in name:
            return "transport"
        for stage in _STAGES:
            if f"{os.sep}batchllm{os.sep}{stage}{os.sep}" in name:
                return stage
        frame = frame.f_back
    return "event loop"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=256)
    options = parser.parse_args()
    # For both, as the command line does for a run.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    port: multiprocessing.Queue = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get(timeout=10)}/v1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare(url, 2000, options.concurrency)
        ratios, lines = [], []
        for _ in range(options.rounds):
            reference, reference_cpu = bare(url, options.rows, options.concurrency)
            rate, cpu, _ = engine(url, options.rows, options.concurrency, folder)
            ratios.append(rate / reference)
            lines.append((reference, reference_cpu, rate, cpu))
            print(
                f"bare {reference:8,.0f} req/s {reference_cpu:.3f} CPU s/1000   engine {rate:8,.0f} req/s {cpu:.3f} CPU s/1000   ratio {ratios[-1]:.2f}",
                flush=True,
            )
        middle = [statistics.median(values) for values in zip(*lines, strict=True)]
        print(
            f"median: bare {middle[0]:,.0f} req/s {middle[1]:.3f} CPU s/1000, engine {middle[2]:,.0f} req/s {middle[3]:.3f}, ratio {statistics.median(ratios):.2f}"
        )
        _, _, shares = engine(url, options.rows, options.concurrency, folder, sample=True)
        total = sum(shares.values())
        print("share of the event loop's thread: " + ", ".join(f"{stage} {count / total:.0%}" for stage, count in shares.most_common()))
    server.terminate()


if __name__ == "__main__":
    main()
