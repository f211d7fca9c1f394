"""How much of a quota the engine uses and how often it is refused: RPM-bound, TPM-bound and mixed sizes (1:50), server bursts of 1 s and 60 s, limits declared and unknown.

    python benchmarks/limits.py [--seconds 120]           # the real engine in virtual time: exact, and over in seconds
    python benchmarks/limits.py --sockets [--seconds 40]  # `batchllm run` against `batchllm simulate` over loopback sockets, in real time

The quota share is taken from the provider's audit log in the steady state: between 25 % and 90 % of the run. With a 60 s burst the server's bucket is full at first, so
more than 100 % can be drawn while it lasts. `overtaken` is the largest number of later rows that were served before a large one: 0 is FIFO.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.engine import Deps, RunOptions, Summary, run_job
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import build

RPM, TPM = 3000, 120_000
SMALL, LARGE = "a few words", "many words " * 290
MAX_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table."""

    name: str
    limits: dict[str, int]
    sizes: tuple[str, ...]
    burst_seconds: float
    declared: bool

    def rows(self, seconds: float) -> list[dict[str, str]]:
        """Enough rows for so many seconds at the limit."""
        per_row = sum(len(size) / 5 + 30 for size in self.sizes) / len(self.sizes)
        count = int(seconds / 60 * (self.limits["rpm"] if "rpm" in self.limits else self.limits["tpm"] / per_row))
        return [{"custom_id": f"r{i}", "text": f"{self.sizes[i % len(self.sizes)]} {i}"} for i in range(max(count, 20))]

    def spec(self, **model: Any) -> dict[str, Any]:
        """The job."""
        limits = {"limits": {**self.limits, "burst_seconds": self.burst_seconds}} if self.declared else {}
        return {
            "name": "bench",
            "input": "in.jsonl",
            "prompt": "Say {{ text }}",
            "request": {"max_tokens": MAX_TOKENS},
            "models": {"m": {"price": {"input": 1, "output": 2}, **model, **limits}},
            "durability": "normal",
            "budget": {"usd": 1000},
        }


def cases() -> Iterator[Case]:
    """All lines of the table."""
    shapes = (
        ("RPM-bound", {"rpm": RPM}, (SMALL,)),
        ("TPM-bound", {"tpm": TPM}, (SMALL * 5,)),
        ("mixed 1:50", {"tpm": TPM}, (*[SMALL] * 9, LARGE)),
    )
    for declared in (True, False):
        for burst in (1.0, 60.0):
            for name, limits, sizes in shapes:
                yield Case(name=name, limits=limits, sizes=sizes, burst_seconds=burst, declared=declared)


def measure(case: Case, log: list[dict[str, Any]]) -> str:
    """A line of the table from the audit log (`GET /_audit`)."""
    served = sorted((one for one in log if one["status"] == 200), key=lambda one: one["request_id"])  # numbered as they arrive
    refused = sum(one["status"] == 429 for one in log)
    start, end = min(one["now"] for one in log), max(one["now"] for one in log)
    since, until = start + (end - start) * 0.25, start + (end - start) * 0.9
    steady = [one for one in served if since <= one["now"] < until]
    per_minute = (len(steady) if "rpm" in case.limits else sum(one["input_tokens"] + one["output_tokens"] for one in steady)) / (until - since) * 60
    quota = per_minute / next(iter(case.limits.values()))
    # A row's key counts from 1 in input order.
    order = [int(one["client_request_id"].split(".")[1]) for one in served]
    large = {key for key in order if case.sizes[(key - 1) % len(case.sizes)] is LARGE}
    overtaken = max((sum(other > key for other in order[:at]) for at, key in enumerate(order) if key in large), default=0) if large else None
    return (
        f"{case.name:<11} {'declared' if case.declared else 'unknown':<9} {case.burst_seconds:>4.0f} s {end - start:>7.0f} s {len(served):>6} "
        f"{quota:>8.1%} {refused / max(len(served), 1) * 100:>9.2f} {'-' if overtaken is None else overtaken:>9}"
    )


def virtual(case: Case, seconds: float) -> list[dict[str, Any]]:
    """One run in virtual time, in this process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in case.rows(seconds)))
        simulator = Simulator(Settings(latency_ms=300, burst_seconds=case.burst_seconds, **case.limits), started=0.0)

        async def main() -> Summary:
            clock = VirtualClock()
            deps = Deps(clock=clock, environ={}, inline=True, transports=lambda _name, _model: SimulatedTransport(simulator, clock))
            return await run_job(build(case.spec(provider="simulated", model="m"), folder=folder), deps, RunOptions())

        summary = run_virtual(main)
        if summary.exit_code != 0:
            raise SystemExit(f"{case}: exit {summary.exit_code}")
        return [json.loads(line) for line in simulator.audit.lines()]


def over_sockets(case: Case, seconds: float) -> list[dict[str, Any]]:
    """One run of the command line against a server of its own, in real time."""
    batchllm = [sys.executable, "-m", "batchllm"]
    limits = [word for name, value in case.limits.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in case.rows(seconds)))
        server = subprocess.Popen(
            [*batchllm, "simulate", "--port", "0", "--latency-ms", "300", "--burst-seconds", str(case.burst_seconds), *limits],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stderr is not None
            url = server.stderr.readline().split("on ", 1)[1].split(" ", 1)[0]
            spec = case.spec(provider="openai", model="gpt-6-luna", base_url=url, api_key_env="none")
            (folder / "job.json").write_text(json.dumps(spec))
            subprocess.run([*batchllm, "run", str(folder / "job.json"), "--quiet", "--no-progress"], check=True, timeout=seconds * 5 + 60)
            with urllib.request.urlopen(url.removesuffix("/v1") + "/_audit") as log:
                records = [json.loads(line) for line in log]
        finally:
            server.terminate()
            server.wait()
    return records


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=None, help="how long each run lasts at the limit (120; with --sockets 40)")
    parser.add_argument("--sockets", action="store_true", help="real sockets and real time")
    asked = parser.parse_args()
    print("prompts     limits    burst    lasts served    quota refusals/100 overtaken")
    for case in cases():
        log = over_sockets(case, asked.seconds or 40) if asked.sockets else virtual(case, asked.seconds or 120)
        print(measure(case, log), flush=True)


if __name__ == "__main__":
    main()
