"""A file of prices of one's own: model ids with the same keys as a model's `price`. A team keeps it once, beside its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError, ValidationInfo

from batchllm.core.errors import Problem, SpecError
from batchllm.spec.explain import words
from batchllm.spec.findings import Finding, Written, did_you_mean, locate, shown
from batchllm.spec.parts import PriceSpec
from batchllm.spec.reading import read
from batchllm.spec.values import Text, wrong

_FILE: TypeAdapter[dict[str, PriceSpec]] = TypeAdapter(dict[str, PriceSpec])
_EXAMPLE = "gpt-6-luna: {input: 0.10, output: 0.50}"


def load_prices(path: Path, *, name: str | None = None) -> dict[str, PriceSpec]:
    """The prices of a file by model id. SpecError with every problem; `name` is how messages call the file."""
    file = name or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(Problem(file=file, message="no such file")) from None
    except UnicodeDecodeError:
        raise SpecError(Problem(file=file, message="not UTF-8; save the prices as UTF-8")) from None
    except OSError as error:
        raise SpecError(Problem(file=file, message=f"can't be read: {error.strerror or error}")) from None
    empty = Problem(file=file, message=f"holds no price; write lines such as {_EXAMPLE} (USD per million tokens)")
    if not text.strip():
        raise SpecError(empty)
    result = read(text, file=file)
    findings = list(_halves(result.data))
    prices: dict[str, PriceSpec] = {}
    try:
        prices = _FILE.validate_python(result.data)
    except ValidationError as error:
        findings += _explained(error)
    problems = [*result.problems, *locate(findings, Written(data=result.data, places=result.places, file=file))]
    if problems:
        raise SpecError(problems)
    if not prices:
        raise SpecError(empty)
    return prices


def _halves(data: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(path=(model, key), at="missing", message="a price needs both `input` and `output` (0 for free)")
        for model, price in data.items()
        if isinstance(price, dict)
        for key in ("input", "output")
        if price.get(key) is None
    ]


def _explained(error: ValidationError) -> list[Finding]:
    found = []
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        if detail["type"] == "extra_forbidden":
            known = PriceSpec.model_fields
            hint = did_you_mean(str(path[-1]), known) or f"; possible here: {', '.join(known)}"
            found.append(Finding(path=path, at="key", message=f"unknown key{hint}"))
        elif len(path) == 1 and "type" in detail["type"]:
            found.append(Finding(path=path, message=f"expected the prices of a model, such as {_EXAMPLE}"))
        else:
            found.append(Finding(path=path, message=words(detail)))
    return found


def _of_key(value: Any, info: ValidationInfo) -> Any:
    """What the spec's key `prices` names, read when the spec is."""
    if not isinstance(value, str) or not value:
        wrong(f"expected the path of a file of prices, got {shown(value)}")
    folder: Path = (info.context or {}).get("folder") or Path.cwd()
    try:
        return load_prices(folder / value, name=value)
    except SpecError as error:
        return wrong("; ".join(map(str, error.problems)))


Prices = Annotated[dict[str, PriceSpec], BeforeValidator(_of_key, json_schema_input_type=Text)]
