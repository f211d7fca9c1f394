"""Data -> JobSpec, or every problem at once: what the text, the types, the meaning and this version have to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from batchllm.core.errors import Problem, SpecError
from batchllm.spec.changes import apply
from batchllm.spec.check import check
from batchllm.spec.explain import explain
from batchllm.spec.extending import KEY
from batchllm.spec.findings import Finding, dotted, locate
from batchllm.spec.job import JobSpec, Source, built
from batchllm.spec.reading import plain_data
from batchllm.spec.unsupported import unsupported


def assemble(source: Source, *, changes: Mapping[str, Any] | None = None, label: str | None = "--set", problems: Sequence[Problem] = ()) -> JobSpec:
    """The source's spec with its own changes and further ones. SpecError with all problems, those found before included."""
    merged = {**source.changes, **plain_data(changes or {}).data}
    written, change_problems = apply(source.written, {**source.changes, **(changes or {})}, label=label)
    source = replace(source, changes=merged)
    findings: list[Finding] = list(unsupported(written.data))
    job: JobSpec | None = None
    data = dict(written.data)
    if data.get("name") is None and source.path is not None:
        data["name"] = source.path.stem
    try:
        job = built(data, source)
    except ValidationError as error:
        findings += explain(error, written.data)
    findings += check(written.data)
    # A value that could not be read lacks what was written in it.
    unread = {problem.path for problem in problems}
    findings = [finding for finding in findings if finding.at != "missing" or dotted(finding.path[:-1]) not in unread or len(finding.path) == 1]
    if changes and KEY in changes:
        # Its file would have to be read first, below everything else.
        change_problems.append(Problem(file=label, path=KEY, message="can only stand in the spec itself"))
    everything = [*problems, *change_problems, *locate(findings, written)]
    if everything or job is None:
        raise SpecError(sorted(everything, key=lambda problem: (problem.line or 0, problem.column or 0)))
    return job
