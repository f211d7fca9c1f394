"""Disks that are full, failing or read-only: exit 5 with a clear message, every committed answer kept, and the same command goes on when there is room again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from story_world import Ended, SimulatorProcess, World, simulator, steady

ROWS = 400


def prepared(world: World, provider: SimulatorProcess, **keys: object) -> Path:
    """A job whose store outgrows a small disk, and the results that it must end with."""
    world.rows(ROWS)
    world.run("run", world.job(None, name="calm", model={"simulator": {"latency_ms": 0}})).expect(0)
    return world.job(provider.url, model={"limits": {"concurrency": 16}}, **keys)


def finishes(world: World, provider: SimulatorProcess, stopped: Ended, *words: str) -> None:
    """The run stopped with 5 in the middle; with room again it ends as an undisturbed one, and asks for no committed answer again."""
    stopped.expect(5)
    for word in words:
        assert word in stopped.err, stopped.err
    assert "run the same command again" in stopped.err
    committed = {key for (key,) in world.ask("SELECT row_key FROM results")}
    assert 0 < len(committed) < ROWS, "the disk gave out too early or too late to show anything"
    before = provider.requests
    done = world.run("run", "job.yaml", "--json").expect(0)
    assert steady(world.results()) == steady(world.results("calm"))
    assert done.summary["rows"]["ok"] == ROWS
    # A few answers were paid for and could not be written down: those are the only ones asked for again, and they are listed.
    assert ROWS - len(committed) == provider.requests - before
    lost = provider.requests - ROWS
    assert world.ask("SELECT count(*) FROM attempts WHERE billed = 'maybe'")[0][0] >= lost


def limited(world: World, job: Path, blocks: int) -> Ended:
    """A run that may write files of so many times 512 bytes."""
    # Python itself would leave half-written .pyc files behind, for everybody.
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    return world.run("run", job, prefix=["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh"], env=environ)


def test_a_file_size_limit(world: World) -> None:
    provider = simulator(world, latency_ms=10)
    job = prepared(world, provider)
    stopped = limited(world, job, 2400)
    finishes(world, provider, stopped, "job.db", "space")


def test_a_full_disk(world: World) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root (unshare -m)")
    provider = simulator(world, latency_ms=10)
    prepared(world, provider, store="disk/job.db", results="disk/job.results.jsonl")
    # The disk lives as long as this shell: full at first, then with more room, then copied away.
    script = """
        mkdir disk && mount -t tmpfs -o size=1600k tmpfs disk || exit 99
        "$@" run job.yaml; echo "first $?" >&2
        cp disk/job.db* . ; "$@" export disk/job.db --to before.jsonl 2>export.err
        mount -o remount,size=50m disk
        "$@" run job.yaml --json; code=$?
        cp disk/* . ; exit $code"""
    ended = world.run(prefix=["unshare", "-m", "sh", "-c", script, "sh"])
    ended.expect(0)
    assert "first 5" in ended.err
    assert "space" in ended.err
    assert "job.db" in ended.err
    assert 0 < len((world.folder / "before.jsonl").read_text().splitlines()) < ROWS
    assert steady(world.results()) == steady(world.results("calm"))
    lost = provider.requests - ROWS
    assert world.ask("SELECT count(*) FROM attempts WHERE billed = 'maybe'")[0][0] >= lost


def test_an_fsync_that_fails(world: World) -> None:
    strace = shutil.which("strace")
    works = strace and subprocess.run([strace, "-f", "-e", "inject=fdatasync:error=EIO:when=9+", "true"], capture_output=True).returncode == 0
    if not works:
        pytest.skip("injecting errors into fsync needs a working strace")
    provider = simulator(world, latency_ms=10)
    job = prepared(world, provider)
    inject = ["-e", "inject=fsync:error=EIO:when=25+", "-e", "inject=fdatasync:error=EIO:when=25+"]
    stopped = world.run("run", job, prefix=[str(strace), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", *inject])
    finishes(world, provider, stopped, "job.db", "I/O")


def test_a_place_that_takes_no_results(world: World, provider: SimulatorProcess) -> None:
    world.rows(20)
    world.write("file", "")
    job = world.job(provider.url)
    ended = world.run("run", job, "--results", "file/out.jsonl").expect(5)
    for word in ("file/out.jsonl", "in the store", "batchllm export"):
        assert word in ended.err
    before = provider.requests
    world.run("run", job).expect(0)
    assert provider.requests == before
    assert len(world.results()) == 20


def test_a_disk_that_is_full_from_the_start(world: World, provider: SimulatorProcess) -> None:
    world.rows(5)
    job = world.job(provider.url)
    before = provider.requests
    # From "not one page" to "all but the last tables"; each time in what the last attempt has left.
    for blocks in (0, 8, 100, 300, 600):
        ended = limited(world, job, blocks).expect(5)
        assert "job.db" in ended.err
    assert provider.requests == before
    world.run("run", job).expect(0)
    assert len(world.results()) == 5


def test_a_store_on_a_disk_that_cannot_be_written_is_read(world: World) -> None:
    """An archive, a snapshot. One that its writer has not closed needs a file beside it."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounting a disk needs root (unshare -m)")
    world.rows(3)
    world.run("run", world.job(None)).expect(0)
    script = """
        mkdir disk && mount -t tmpfs tmpfs disk && cp job.db disk && mount -o remount,ro disk || exit 99
        "$@" export disk/job.db --to out.jsonl || exit 98
        mount -o remount,rw disk && touch disk/job.db-wal && mount -o remount,ro disk || exit 97
        "$@" export disk/job.db --to other.jsonl"""
    assert "copy the store" in world.run(prefix=["unshare", "-m", "sh", "-c", script, "sh"]).expect(5).err
    assert (world.folder / "out.jsonl").read_bytes() == (world.folder / "job.results.jsonl").read_bytes()
