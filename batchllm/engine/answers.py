"""What a good answer is in this run: the form it must have and the check it must pass, and how a model is asked again for one.

The trap: money. Every invalid answer is paid for, so it is booked, counted and told like any other attempt; only the row's result waits for a better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, Reply, Request, RowError, Wanted
from batchllm.engine.asked import request_problems
from batchllm.engine.sampling import Sampling
from batchllm.retry.decide import Improve
from batchllm.retry.improve import ImprovePolicy
from batchllm.route import Check
from batchllm.spec import JobSpec
from batchllm.validate import Form, Invalid, LabelForm, Parsed, SchemaForm
from batchllm.validate.schema import BadSchema

_OK_STATUS = 200
_NOT_JSON = Parsed(value=None)
_MESSAGE_CHARACTERS = 1000


class Answers:
    """One per run."""

    def __init__(self, spec: JobSpec) -> None:
        """Raises SpecError for a schema that is none and a check that can't be read."""
        output, problems = spec.output, request_problems(spec)
        self.form: Form | None = None
        self.check: Check | None = None
        try:
            if output.json_schema is not None:
                self.form = SchemaForm(output.json_schema)
            elif output.choices is not None:
                self.form = LabelForm(output.choices)
        except BadSchema as error:
            problems.append(Problem(path="output.schema", message=str(error)))
        try:
            if output.check is not None:
                self.check = Check(output.check)
        except SpecError as error:
            problems += error.problems
        if problems:
            raise SpecError(problems)
        rules = output.on_invalid
        self.sampling = Sampling.of(spec)
        self.policy = ImprovePolicy(
            retries=0 if not self.checks else rules.retries if rules is not None else 2,
            repair=rules.repair if rules is not None else True,
            longer=output.on_length == "retry",
        )
        self.ladder: tuple[str, ...] = rules.escalate or () if rules is not None else ()
        """Names of the models to escalate to."""

    @property
    def checks(self) -> bool:
        """Whether answers are looked at."""
        return self.form is not None or self.check is not None

    @property
    def wanted(self) -> Wanted | None:
        """What requests carry of the form."""
        return self.form.wanted if self.form is not None else None

    @property
    def keeps_fields(self) -> bool:
        """Whether a row's fields are needed until its answer is there."""
        return self.check is not None and self.check.sees_row

    def read(self, reply: Reply, fields: Mapping[str, Any] | None, *, offered: bool) -> Parsed | RowError | None:
        """The value of an answer, `invalid_output`, or None where there is nothing to read: the call of a tool that was `offered`, a vector, or a job without a form."""
        text = reply.text or ""
        if reply.vector is not None or (offered and reply.tool_calls and not text.strip()):
            return None
        parsed: Parsed | Invalid = self.form.read(text) if self.form is not None else _NOT_JSON
        if isinstance(parsed, Parsed) and self.check is not None:
            problem = self.check.problem(parsed=parsed.value, output=reply.text, row=fields)
            if problem is not None:
                parsed = Invalid(message=problem)
        if isinstance(parsed, Invalid):
            return RowError(code=Code.INVALID_OUTPUT, message=parsed.message[:_MESSAGE_CHARACTERS], http_status=_OK_STATUS, retryable=True)
        return parsed if self.form is not None else None

    def repaired(self, request: Request, reply: Reply, decision: Improve) -> Request:
        """The request with two more turns: what the model said, and what is wrong with it. Without a text to show, or without turns, the request as it is."""
        text = reply.text or ""
        if decision.how != "repair" or not text.strip() or request.endpoint == "completions":
            return request
        words = f"This answer is not valid: {decision.error.message}\nAnswer again with {self._example(request)}."
        turns = ({"role": "assistant", "content": text}, {"role": "user", "content": words})
        return replace(request, messages=(*request.messages, *turns))

    def _example(self, request: Request) -> str:
        if self.form is None:
            return "a corrected answer, and nothing else"
        wanted = self.form.wanted
        if request.params.get("response_format") is wanted.response_format or isinstance(self.form, LabelForm):
            return self.form.example
        return f"{self.form.example}. The schema: {json.text(wanted.response_format['json_schema']['schema'])}"
