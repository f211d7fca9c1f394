"""The fingerprint pass: before a later run sends anything, every row is compared with what its answer was given to (guarantee 8).

It only reads. Which answers changed is kept as one bit a row, so the pass over ten million rows needs little more than a megabyte.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from batchllm.core.events import RowsCompared
from batchllm.core.nouns import RowError, Wanted
from batchllm.engine.sampling import of_samples
from batchllm.engine.source import Planned, Source
from batchllm.rows.request import fingerprint, merge
from batchllm.spec import JobSpec
from batchllm.store.intake import Bits, Intake, load_answers
from batchllm.store.records import OK, PENDING, Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the pass found."""

    counts: RowsCompared
    changed_ok: Bits
    """Rows whose ok answer was given to another request, or by a model that its route no longer uses."""
    changed_ok_rows: int
    changed_failed: Bits
    """Failed rows whose request changed: they are tried anew."""
    removed: Bits
    """Rows that the input no longer has."""


class Judge:
    """Whether a stored outcome still stands for what a row asks now."""

    def __init__(self, spec: JobSpec, source: Source, deployments: dict[int, Deployment], wanted: Wanted | None) -> None:
        self._spec = spec
        self._wanted = wanted
        self._source = source
        self._deployments = deployments
        self._identities = {
            name: Deployment(name=name, provider=model.provider, base_url=model.base_url or "", model=model.model).identity
            for name, model in spec.models.items()
        }

    def stands(self, planned: Planned | RowError, stored: str | None, deployment: int | None) -> bool:
        """For an outcome with this fingerprint, given by this deployment (None: nothing was sent)."""
        if isinstance(planned, RowError):
            return deployment is None
        if deployment is None:
            return False
        identity = self._deployments[deployment].identity
        for name in planned.allowed:
            if self._identities[name] == identity:
                model = self._spec.models[name]
                request = merge(planned.draft, spec_request=self._spec.request, model_request=model.request, body=model.body, wanted=self._wanted)
                if of_samples(fingerprint(request), self._spec.samples) == stored:
                    return True
        return False


def compare(
    connection: sqlite3.Connection,
    spec: JobSpec,
    source: Source,
    deployments: dict[int, Deployment],
    *,
    wanted: Wanted | None,
    is_off: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Reads the whole input (or its first `--limit` rows) and changes nothing. Ends soon, with a part, when `is_off` says that nobody waits any more."""
    judge = Judge(spec, source, deployments, wanted)
    intake = Intake(connection, fresh=False, stream=source.is_stream, adding=False)
    changed_ok, changed_failed = Bits(), Bits()
    new = changed = unchanged = changed_ok_rows = nth = 0
    for rows in source.chunks():
        if is_off():
            break
        in_scope = [row for at, row in enumerate(rows, nth) if source.in_scope(row, at)]
        nth += len(rows)
        known = intake.take(rows)
        by_row = dict(zip((id(row) for row in rows), known, strict=True))
        answers = load_answers(connection, [one.row_key for one in known if one.state != PENDING])
        for row in in_scope:
            one = by_row[id(row)]
            if one.new:
                new += 1
                continue
            if one.state == PENDING:
                unchanged += 1
                continue
            stored, deployment = answers.get(one.row_key, (None, None))
            is_repeat = one.nth > 1 and row.identity.startswith("id:")
            if is_repeat or judge.stands(source.plan(row, one.pin), stored, deployment):
                unchanged += 1
                continue
            changed += 1
            if one.state == OK:
                changed_ok.add(one.row_key)
                changed_ok_rows += 1
            else:
                changed_failed.add(one.row_key)
        if source.limited and nth >= (source.limit or 0):
            break
    removed, gone = Bits(), [] if source.is_stream or source.limited else intake.unseen()
    for key in gone:
        removed.add(key)
    connection.execute("DROP TABLE IF EXISTS temp.seen")
    return Comparison(
        counts=RowsCompared(new=new, changed=changed, removed=len(gone), unchanged=unchanged),
        changed_ok=changed_ok,
        changed_ok_rows=changed_ok_rows,
        changed_failed=changed_failed,
        removed=removed,
    )
