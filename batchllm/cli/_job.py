"""JOB on the command line: a spec file, which names its store, or a store, which keeps its spec."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchllm.core.errors import Problem, SpecError, StoreError

if TYPE_CHECKING:
    from batchllm.spec import JobSpec
    from batchllm.store import Store
    from batchllm.store.read import StoreReader

_SPECS = frozenset({".yaml", ".yml", ".toml", ".json"})
_STORES = frozenset({".db", ".sqlite", ".sqlite3"})
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the user meant."""

    store: Path
    spec: JobSpec | None
    """None: JOB is a store whose spec can't be read any more."""
    problem: SpecError | None
    """Why not."""
    words: str
    """How the user named the job, flags included, quoted for a shell: to be put into advice."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment, with `.env` beside the spec below it."""
        return os.environ if self.spec is None else environ_of(self.spec)

    def results_path(self) -> Path | None:
        """Where the results go by the spec."""
        if self.spec is None:
            return None
        try:
            return self.spec.results_path(self.environ)
        except SpecError:
            return None

    def read(self) -> StoreReader:
        """Opens the store for reading. Raises StoreError: no store yet, not a store, another job's."""
        from batchllm.store.read import StoreReader

        if not self.store.exists():
            raise StoreError(self._no_store())
        reader = StoreReader(self.store)
        try:
            self._check_name(reader.job()["name"])
        except BaseException:
            reader.connection.close()
            raise
        return reader

    def _check_name(self, name: str) -> None:
        if self.spec is not None and self.spec.name != name:
            mend = f"if that is the one you mean, add --name {shlex.quote(name)}"
            raise StoreError(f"{self.store}: this store belongs to the job '{name}', not to '{self.spec.name}'; {mend}")

    def change(self) -> Store:
        """Opens the store for a change between runs. Raises StoreError also when a run holds it."""
        from batchllm.store import Store

        self.read().connection.close()
        return Store.existing(self.store)

    def _no_store(self) -> str:
        words = f"{self.store}: there is no store yet; start the job with `batchllm run {self.words}`"
        simulated = self.store.with_name(f"{self.store.stem}.sim.db")
        return f"{words}, or add --simulate for the simulated run's ({simulated.name})" if simulated.exists() else words


def job_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds JOB and the options that pick its store."""
    for decorate in (
        click.option("--simulate", is_flag=True, help="The store of `run --simulate`."),
        click.option("--name", metavar="NAME", help="The job's name, when `run` was given one."),
        click.option("--store", type=click.Path(path_type=Path), help="The store, when `run` was given one."),
        click.argument("job"),
    ):
        command = decorate(command)
    return command


def find(job: str, *, store: Path | None, name: str | None, simulate: bool) -> Job:
    """The job's spec and store. Raises SpecError (exit 2) for a file that isn't there or a spec that is wrong, StoreError (5) for a bad store."""
    path = Path(job)
    if not path.exists():
        raise SpecError(Problem(file=job, message=f"no such file{_hint(path)}"))
    if path.is_dir():
        raise SpecError(Problem(file=job, message=f"is a folder; JOB is a spec file or a store{_hint(path / 'job.yaml')}"))
    if _is_store(path):
        if store is not None or name is not None or simulate:
            raise SpecError(Problem(file=job, message="is a store already; --store, --name and --simulate go with a spec file"))
        return _from_store(path)
    from batchllm.spec import load

    spec = load(path, set={"name": name} if name is not None else None)
    if simulate:
        spec = spec.simulated()
    flags = [shlex.quote(job), *(["--name", shlex.quote(name)] if name is not None else []), *(["--store", shlex.quote(str(store))] if store else [])]
    words = " ".join([*flags, *(["--simulate"] if simulate else [])])
    return Job(store=Path.cwd() / store if store is not None else spec.store_path(environ_of(spec)), spec=spec, problem=None, words=words)


def environ_of(spec: JobSpec) -> Mapping[str, str]:
    """The environment, with what `.env` beside the spec adds; what is really set wins. SpecError for a line that can't be read."""
    from batchllm.spec.dotenv import environment

    return environment(spec.folder, os.environ)


def _is_store(path: Path) -> bool:
    if path.suffix.lower() in _STORES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _from_store(path: Path) -> Job:
    from batchllm.spec import loads
    from batchllm.store.read import StoreReader

    with StoreReader(path) as reader:
        record = reader.job()
    written = Path(record["spec_path"]) if record["spec_path"] is not None else None
    spec: JobSpec | None = None
    problem: SpecError | None = None
    try:
        spec = loads(record["spec"], folder=Path(record["folder"]), path=written, set={"name": record["name"]})
        simulated = spec.simulated()
        environ = environ_of(spec)
        if simulated.store_path(environ).name == path.name and spec.store_path(environ).name != path.name:
            spec = simulated
    except SpecError as error:
        problem = error
    return Job(store=path.absolute(), spec=spec, problem=problem, words=shlex.quote(str(path)))


def _hint(path: Path) -> str:
    """Files nearby that the user may have meant."""
    folders = [path.parent, *([Path("jobs")] if path.parent == Path() else [])]
    try:
        near = [
            file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.suffix in _SPECS | _STORES and file.is_file()
        ]
    except OSError:
        return ""
    by_name = {file.name: file for file in reversed(near)}
    by_stem = {file.stem: file for file in reversed(near) if file.suffix in _SPECS}
    for names, name in ((by_stem, path.name), (by_name, path.name), (by_stem, path.stem)):
        found = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        if found:
            return f"; did you mean {names[found[0]]}?"
    specs = [str(file) for file in near if file.suffix in _SPECS][:5]
    return f"; there is {', '.join(specs)}" if specs else ""


def spec_to_run(job: Path, changes: dict[str, Any], *, simulate: bool) -> JobSpec:
    """The spec of a file, or the one that a store keeps, with the flags' changes. Raises SpecError (exit 2) and StoreError (5)."""
    from batchllm.spec import literal, load, loads

    if not job.exists():
        raise SpecError(Problem(file=str(job), message=f"no such file{_hint(job)}"))
    if job.is_file() and _is_store(job):
        from batchllm.store.read import StoreReader

        with StoreReader(job) as reader:
            record = reader.job()
        written = Path(record["spec_path"]) if record["spec_path"] is not None else None
        changes = {"name": record["name"], **changes}
        # A store keeps the spec as written; that it was simulated is known by its name.
        simulated = job.name == f"{record['name']}.sim.db"
        if simulated or not simulate:
            changes = {"store": literal(str(job.absolute())), **changes}
        simulate = simulate or simulated
        spec = loads(record["spec"], folder=Path(record["folder"]), path=written, set=changes)
    else:
        spec = load(job, set=changes)
    if isinstance(changes.get("input"), str) and spec.input_rules:
        spec = spec.with_changes(input={"path": changes["input"], **spec.input_rules})
    if simulate:
        spec = spec.simulated().model_copy(update={key: changes[key] for key in ("store", "results") if key in changes})
    return spec
