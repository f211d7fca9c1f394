"""The smaller groups of keys: input, output, retry, budget, limits, prices, routes. The line under each key is its description in the JSON Schema."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from batchllm.spec.findings import shown
from batchllm.spec.structured import AnswerSchema, Use
from batchllm.spec.values import (
    Choices,
    Columns,
    Count,
    Delimiter,
    Encoding,
    Expandable,
    Flag,
    Fraction,
    Limit,
    Names,
    Part,
    Paths,
    PositiveSeconds,
    Seconds,
    Share,
    Text,
    Usd,
    UsdPerMillion,
    Whole,
    wrong,
)


class InputSpec(Part):
    """Where the rows come from."""

    paths: Paths | None = Field(default=None, alias="path")
    """A path, a glob, or a list of them: .jsonl, .csv, also .gz and .zst; .parquet; or another job or its store (.yaml, .db), whose ok results are the rows: custom_id, output, parsed, input, model. `${VAR}` is expanded."""
    files: Paths | None = None
    """Instead of `path`: files that are a row each, such as "scans/**/*.jpg", with the columns path (which is the id), name, stem, and text where they are UTF-8."""
    types: dict[str, Literal["text", "number", "integer", "boolean", "json"]] = Field(default_factory=dict)
    """Types of CSV columns; a cell is text unless it is named here."""
    delimiter: Delimiter | None = None
    """Between CSV cells; default: a comma."""
    encoding: Encoding | None = None
    """Of CSV files; default: UTF-8."""
    where: Text | None = None
    """Only rows that meet this expression over their fields (and joined ones), e.g. `parsed.label == 'bug'`."""
    join: dict[str, Text] = Field(default_factory=dict)
    """Other jobs or stores by a name of your own: a row gets their ok result with its id as an object under that name (output, parsed, input, model), or null."""


def _input(value: Any) -> Any:
    if isinstance(value, dict):
        given = [key for key in ("path", "files") if value.get(key) is not None]
        if len(given) != 1:
            wrong("give either `path` or `files`, not both" if given else "needs `path` (or `files`, where each file is a row)")
        if given == ["files"] and any(value.get(key) for key in ("types", "delimiter", "encoding")):
            wrong("`types`, `delimiter` and `encoding` are for CSV files; with `files` each file is one row")
    return {"path": value} if isinstance(value, str | list) else value


Input = Annotated[InputSpec, BeforeValidator(_input, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)] | InputSpec)]


class OverridesSpec(Part):
    """Columns by which a row may choose for itself; without this, row fields are only data."""

    model: Text | None = None
    """Column that names a model of this spec."""
    request: Text | None = None
    """Column that holds parameters (an object, or JSON text in CSV) which win over the spec's and the model's."""


class RateLimits(Part):
    """Limits per minute and per day."""

    rpm: Limit | None = None
    """Requests per minute."""
    tpm: Limit | None = None
    """Tokens per minute, input and output together."""
    itpm: Limit | None = None
    """Input tokens per minute."""
    otpm: Limit | None = None
    """Output tokens per minute."""
    rpd: Limit | None = None
    """Requests per day."""
    tpd: Limit | None = None
    """Tokens per day."""
    concurrency: Limit | None = None
    """Requests in flight at once."""
    burst_seconds: PositiveSeconds = 1.0
    """How many seconds' worth of its limit the provider lets through at once."""


class LimitsSpec(RateLimits):
    """One model's limits. Left out they are found from headers and refusals; `none` means there are none."""

    _unlimited: bool = PrivateAttr(default=False)

    @property
    def unlimited(self) -> bool:
        """`limits: none`: nothing is to be found out."""
        return self._unlimited

    @property
    def declared(self) -> bool:
        """Whether a rate is given; without one it is found out (unless `unlimited`). A `concurrency` alone says nothing about rates."""
        return any(limit is not None for limit in (self.rpm, self.tpm, self.itpm, self.otpm, self.rpd, self.tpd))

    def times(self, count: int) -> LimitsSpec:
        """So many times these limits."""
        if count == 1:
            return self
        names = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency")
        return self.model_copy(update={name: limit * count for name in names if (limit := getattr(self, name)) is not None})

    @classmethod
    def none(cls) -> LimitsSpec:
        """No limits at all."""
        limits = cls()
        limits._unlimited = True
        return limits


def _limits(value: Any) -> Any:
    if isinstance(value, str):
        return LimitsSpec.none() if value == "none" else wrong(f"expected limits such as {{rpm: 500, tpm: 200000}} or `none`, got {shown(value)}")
    return value


Limits = Annotated[LimitsSpec, BeforeValidator(_limits, json_schema_input_type=Literal["none"] | LimitsSpec)]


class LimitGroupSpec(RateLimits):
    """Models that share one account's limits; their own limits apply as well, both taken in one step."""

    models: Names
    """The models of the group."""
    usd_per_day: Usd | None = None
    """Most that this store's runs may spend in a UTC day on these models."""
    share: Share = 1.0
    """The part of these limits (rates, concurrency and usd_per_day) that this job may use."""


class PriceSpec(Part):
    """USD per million tokens; wins over the price book."""

    input: UsdPerMillion | None = None
    """Input tokens."""
    output: UsdPerMillion | None = None
    """Output tokens, reasoning included."""
    cached_input: UsdPerMillion | None = None
    """Input tokens read from the provider's cache."""
    cache_write: UsdPerMillion | None = None
    """Input tokens written to the provider's cache."""
    batch_input: UsdPerMillion | None = None
    """Input tokens by the provider's Batch API."""
    batch_output: UsdPerMillion | None = None
    """Output tokens by the provider's Batch API."""


def _price(value: PriceSpec) -> PriceSpec | None:
    """A price of nothing but nulls is none."""
    return None if value == PriceSpec() else value


Price = Annotated[PriceSpec, AfterValidator(_price)]


class SimulatorSpec(Part):
    """What the simulated provider in this process does."""

    seed: Whole = 0
    """Answers and faults depend on it and on the request only."""
    latency_ms: Annotated[float, Field(ge=0)] | None = None
    """Median time of an answer; default: the simulator's own."""
    rpm: Limit | None = None
    """Requests per minute that it lets through; default: all."""
    tpm: Limit | None = None
    """Tokens per minute that it lets through; default: all."""
    itpm: Limit | None = None
    """Input tokens per minute; default: all."""
    otpm: Limit | None = None
    """Output tokens per minute, counted as they are produced; default: all."""
    rpd: Limit | None = None
    """Requests per day; default: all."""
    tpd: Limit | None = None
    """Tokens per day; default: all."""
    accounting: Literal["openai", "anthropic", "gemini"] = "openai"
    """Whose way of counting tokens against its limits: prompt and output cap, prompt and then the real output, or the prompt alone."""
    burst_seconds: PositiveSeconds | None = None
    """Size of its buckets in seconds of their limit; default: the simulator's own."""
    faults: Fraction = 0.0
    """Part of the attempts that meet a fault, 0 to 1."""


class Route(Part):
    """One rule that maps rows to models; the first that matches wins."""

    when: Text | None = None
    """Expression over `row`, `tokens` (a fixed estimate) and the row's fields, e.g. `tokens > 8000 or row.lang == 'fr'`; without it every row matches."""
    use: Use
    """A model; a chain of them, of which the next one is tried when one fails for good; or weights such as {mini: 80, strong: 20} that split the rows, each id always alike."""

    @property
    def chain(self) -> tuple[str, ...] | None:
        """The models in order; None when they are weighted."""
        return None if isinstance(self.use, dict) else self.use

    @property
    def weights(self) -> dict[str, float] | None:
        """Models to weights; None when they are a chain."""
        return self.use if isinstance(self.use, dict) else None


class OnInvalidSpec(Part):
    """What is done about an answer that fails `schema`, `choices` or `check`."""

    retries: Whole = 2
    """Further attempts on each model that is asked."""
    repair: Flag = True
    """Whether these show the model its answer and what was wrong with it; else the same request is sent again."""
    escalate: Names | None = None
    """Models to ask next, in order, when a model's answer stayed invalid, was refused or was cut."""


class OutputSpec(Part):
    """What a good answer is, and what is kept with it."""

    json_schema: AnswerSchema | None = Field(default=None, alias="schema")
    """JSON Schema, inline or a path (.json, .yaml): requests structured output and validates the answer."""
    choices: Choices | None = None
    """The labels to choose from; `parsed` is the label."""
    check: Text | None = None
    """Expression over `parsed`, `output`, `row` that must be true."""
    vote: Text | None = None
    """With `samples`: expression over `parsed` and `output`, such as `parsed.label`; the result is an answer of the majority, and `agreement` its part."""
    on_invalid: OnInvalidSpec | None = None
    """What is done about an answer that isn't good; default: {retries: 2, repair: true}."""
    on_length: Literal["ok", "retry", "fail"] = "ok"
    """Answers cut by the token cap; one that is cut and empty is never ok."""
    keep: Columns = ()
    """Input columns carried into results and store."""


class RetrySpec(Part):
    """How long and how often to try."""

    max_attempts: Count = 8
    """Failed attempts per row and model over all runs; refusals and outages don't count, but for what may have been paid for: from a row's ninth timeout in outages on, its timeouts count."""
    initial_seconds: Seconds = 0.5
    """Upper end of the first wait; each further one doubles it."""
    max_seconds: PositiveSeconds = 60.0
    """Longest wait between attempts, and between probes while a server asks for a longer one."""
    timeout_seconds: PositiveSeconds = 120.0
    """For a complete answer."""
    stall_seconds: PositiveSeconds = 60.0
    """Longest silence in a stream."""
    outage_seconds: PositiveSeconds = 1800.0
    """How long an endpoint may be down before the run stops."""
    on_outage: Literal["wait", "fallback"] = "wait"
    """Whether rows wait for an endpoint that is down or move on along their chain."""


class BudgetSpec(Part):
    """Hard caps over the store's whole life, money reserved before it is spent. 0 means nothing may be spent."""

    usd: Usd | None = None
    """Most that may be spent."""
    usd_per_day: Usd | None = None
    """Most per UTC day."""
    tokens: Whole | None = None
    """Most tokens."""
    tokens_per_day: Whole | None = None
    """Most tokens per UTC day."""
    tokens_per_month: Whole | None = None
    """Most tokens per UTC month."""
    alerts: tuple[Fraction, ...] = (0.5, 0.8)
    """Parts of each budget at which to say so."""
    alert_command: Text | None = None
    """Shell command that is run at each alert, with BATCHLLM_ALERT_TEXT, _JOB, _BUDGET, _FRACTION, _USED, _CAP and _UNIT in its environment; the run doesn't wait for it."""
    alert_webhook: Expandable | None = None
    """URL that gets a POST of the same as JSON at each alert. `${VAR}` is expanded."""
    when_used_up: Literal["stop", "wait"] = "stop"
    """What to do when a cap is reached: end with exit code 3, or wait for the next day or month. A cap over the store's whole life never opens again: it stops."""
    reserve: Literal["worst", "learned"] = "worst"
    """Whether money is reserved at a bound, or at what nearly all answers stay within: faster near a cap, which may then be overshot by a stated sum."""


class ContextSpec(Part):
    """What is done about prompts that are too long."""

    max_tokens: Count | None = None
    """Longest prompt."""
    reserve: Count | None = None
    """Tokens kept free for the answer."""
    trim: Literal["error", "oldest", "middle"] = "error"
    """What is cut from a prompt that is too long."""


class MaxFailed(Part):
    """How many rows may fail before the run counts as failed: `count` or `fraction`, the other is None."""

    count: int | None = None
    fraction: float | None = None


_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")


def _max_failed(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return MaxFailed(count=value)
    percent = _PERCENT.match(value) if isinstance(value, str) else None
    if percent is not None and float(percent[1]) <= 100:
        # By way of Decimal: 0.5 % is 0.005 and not its neighbour.
        return MaxFailed(fraction=float(Decimal(percent[1]) / 100))
    return wrong(f'expected a count or a percentage such as "0.5%", got {shown(value)}')


MaxFailedKey = Annotated[
    MaxFailed,
    BeforeValidator(
        _max_failed, json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^(100(\.0+)?|\d{1,2}(\.\d+)?)\s*%$")]
    ),
]


def _dedupe(value: Any) -> Any:
    return value if value == "auto" or isinstance(value, bool) else wrong(f"expected auto, true or false, got {shown(value)}")


Dedupe = Annotated[Literal["auto"] | bool, BeforeValidator(_dedupe, json_schema_input_type=Literal["auto"] | bool)]


def _cache(value: Any) -> Any:
    return value if isinstance(value, str | bool) else wrong(f"expected true, false or a path, got {shown(value)}")


Cache = Annotated[bool | str, BeforeValidator(_cache, json_schema_input_type=bool | Text)]
