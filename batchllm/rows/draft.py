"""From a row to what it asks for, before a model is chosen: the spec's prompt filled with the row's fields, or the row's own request.

The trap: with a prompt in the spec a row's fields are data and nothing else. A column that happens to be called `model` or `request` steers only when
`overrides` names it, or when the spec has no prompt and rows are requests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson

from batchllm.core.nouns import Code, Draft, Endpoint, Row, RowError
from batchllm.rows import shapes
from batchllm.rows.media import Attacher, BadFile
from batchllm.rows.template import Engine, NotFilled, Text


class Drafter:
    """Compiled once per run; `draft` once per row."""

    def __init__(
        self,
        *,
        messages: Sequence[tuple[str, Any]] | None,
        endpoint: Endpoint = "chat",
        override_model: str | None = None,
        override_request: str | None = None,
        models: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """`folder`: what paths of content parts are relative to; default: the current one. `messages`: the spec's prompt as (role, content), content a text or a list of parts; None when rows are requests. `models`: name to model id."""
        self._endpoint = endpoint
        self._models = shapes.Models(models)
        self._model_column = override_model or (None if messages is not None else "model")
        self._request_column = override_request or (None if messages is not None else "request")
        self._overrides = tuple((key, column) for key, column in (("model", override_model), ("request", override_request)) if column)
        self._engine = Engine()
        self._attacher = Attacher(folder or Path.cwd())
        self._texts: list[Text] = []
        self._messages: list[tuple[str, Any]] | None = None
        if messages is not None:
            roles = [role for role, _ in messages]
            self._messages = [
                (role, self._compiled(content, f"prompt.{role}" if roles.count(role) == 1 else f"prompt.messages[{index}]"))
                for index, (role, content) in enumerate(messages)
            ]
        self._calls = any(text.calls for text in self._texts)

    @property
    def nulls(self) -> int:
        """How often a null was shown as nothing, over all drafts so far."""
        return self._engine.nulls

    @property
    def attaches(self) -> bool:
        """Whether any draft so far named a file."""
        return self._attacher.seen

    @property
    def attaches_beyond(self) -> bool:
        """Whether any draft so far named a file that is no row of the input."""
        return self._attacher.beyond

    def cover(self, paths: Collection[Path]) -> None:
        """These files are rows of the input."""
        self._attacher.covered = paths

    def draft(self, row: Row) -> Draft | RowError:
        """What the row asks for, or why it can't be asked. Never raises for a row."""
        if row.error is not None:
            return row.error
        fields = row.fields
        try:
            pin = self._models.pinned(fields.get(self._model_column), self._model_column) if self._model_column else None
            params = shapes.row_params(fields.get(self._request_column), self._request_column) if self._request_column else {}
            if self._messages is not None:
                messages = self._attacher.attach(self._filled(fields))
                return Draft(endpoint=self._endpoint, messages=messages, params=params, pin=pin)
            made = shapes.draft(fields, endpoint=self._endpoint, models=self._models, pin=pin, params=params)
            messages = self._attacher.attach(made.messages)
            return made if messages is made.messages else replace(made, messages=messages)
        except (shapes.Unfit, BadFile) as problem:
            return RowError(code=Code.BAD_ROW, message=f"{row.place}: {problem}")
        except NotFilled as problem:
            return RowError(code=Code.TEMPLATE, message=f"{row.place}: {problem}")

    def check(self, sample_rows: Sequence[Row]) -> list[str]:
        """What is wrong with the spec's texts: syntax errors, and names that none of the first readable rows has. For exit 2, before anything is sent."""
        problems = [text.problem for text in self._texts if text.problem]
        rows = [row for row in sample_rows if row.fields]
        if not rows:
            return problems
        columns = list(dict.fromkeys(name for row in rows for name in row.fields))
        absent = f"none of the first {len(rows)} rows has a column" if len(rows) > 1 else "the first row has no column"
        for text in self._texts:
            for name in text.names():
                if name.column not in columns:
                    where = f"{text.label}, line {name.line}" if "\n" in text.source else text.label
                    problems.append(f"{where}: {absent} {name.column!r}; {_hint(name.column, columns)}")
        for key, column in self._overrides:
            # A column of overrides may well be on few rows only; a likely slip of the pen is told.
            if column not in columns and get_close_matches(column, columns, 1, 0.8):
                problems.append(f"overrides.{key}: {absent} {column!r}; {_hint(column, columns)}")
        return problems or self._never_filled(rows)

    def _never_filled(self, rows: Sequence[Row]) -> list[str]:
        """The name inside an object that is missing in every row: `{{ meta.autor }}`."""
        if self._messages is None:
            return []
        nulls = self._engine.nulls
        told: set[str] = set()
        try:
            for row in rows:
                try:
                    self._filled(row.fields)
                except NotFilled as problem:
                    if not problem.missing:
                        return []
                    told.add(str(problem))
                else:
                    return []
        finally:
            self._engine.nulls = nulls
        return [f"{told.pop()} (so it is in all of the first {len(rows)} rows)"] if len(told) == 1 else []

    def _compiled(self, content: Any, label: str) -> Any:
        """The content with every text leaf that has placeholders replaced by a compiled one."""
        if isinstance(content, str):
            text = self._engine.text(content, label)
            if isinstance(text, Text):
                self._texts.append(text)
            return text
        if isinstance(content, Mapping):
            return {key: self._compiled(value, f"{label}.{key}") for key, value in content.items()}
        if isinstance(content, list | tuple):
            return [self._compiled(value, f"{label}[{index}]") for index, value in enumerate(content)]
        return content

    def _filled(self, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert self._messages is not None
        context = _copied(fields) if self._calls else {**fields, "row": fields}
        return [
            {
                "role": role,
                "content": content if type(content) is str else content.fill(context) if type(content) is Text else _deep(content, context),
            }
            for role, content in self._messages
        ]


def _copied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A context of its own: a template that calls `items.pop()` changes the copy, not the row."""
    copy = orjson.loads(orjson.dumps(fields))
    return {**copy, "row": copy}


def _deep(content: Any, context: Mapping[str, Any]) -> Any:
    if type(content) is Text:
        return content.fill(context)
    if isinstance(content, dict):
        return {key: _deep(value, context) for key, value in content.items()}
    if isinstance(content, list):
        return [_deep(value, context) for value in content]
    return content


def _hint(name: str, columns: Sequence[str]) -> str:
    close = get_close_matches(name, columns, 1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(columns)[:200]}"
