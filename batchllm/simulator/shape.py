"""A value that a JSON Schema accepts, drawn from a key. Enough of the language for structured output; what it does not know (`pattern`, `not`) it ignores.

The trap is recursion: a schema may refer to itself, so below a certain depth only what is required is made, and the plainest branch is taken.
"""

from __future__ import annotations

from typing import Any

from batchllm.simulator.draw import Draw

_DEEP = 5
_BOTTOM = 24

_TEXT = (
    "about above account across after again against almost along answer around balance because before begin behind better between beyond brief bright "
    "broad build careful carry center change choice circle clear close common compare complete consider contain correct cover current daily decide "
    "describe detail differ direct during early either enough equal every exact example expect explain figure final first follow former future general "
    "given gradual group happen however include increase instead large later level likely limit little local longer lower major manner measure method "
    "middle minor modern moment moving narrow nature nearly number object often order other outcome outside partly pattern perhaps period place plain "
    "point possible present problem process proper quality quickly quiet rather reason recent record reduce region remain report result return sample "
    "season second section sense several short should simple single slightly smooth sometimes source stable standard steady still stream strong subject "
    "sudden summary support system table thing though through toward typical under unless until usual value various weather whether while within without "
    "world yellow"
)
WORDS = tuple(_TEXT.split())

_FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "email": "sample@example.com",
    "uri": "https://example.com/sample",
    "uuid": "3f2b8c1e-5d47-4a90-9b6e-1c2d3e4f5a6b",
    "ipv4": "192.0.2.7",
}


def sample(schema: Any, draw: Draw, *, root: Any = None, depth: int = 0) -> Any:
    """One value of this schema; references are looked up in `root` (default: the schema itself)."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > _BOTTOM:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return sample(_resolve(root, reference), draw, root=root, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][draw.below(len(schema["enum"]))]
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(key), list) and branches:
            return sample(_branch(branches, draw, depth), draw, root=root, depth=depth + 1)
    if isinstance(parts := schema.get("allOf"), list) and parts:
        return sample(_merged(schema, parts, root), draw, root=root, depth=depth + 1)
    return _typed(_type(schema, draw, depth), schema, draw, root, depth)


def _type(schema: dict[str, Any], draw: Draw, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return "null" if depth > _DEEP and "null" in kind else str(kind[draw.below(len(kind))])
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _typed(kind: str, schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        names = [*(name for name in properties if name in required or depth < _DEEP), *(name for name in required if name not in properties)]
        return {name: sample(properties.get(name, {}), draw, root=root, depth=depth + 1) for name in names}
    if kind == "array":
        low = _whole(schema.get("minItems"), 0 if depth > _DEEP else 1)
        high = max(low, _whole(schema.get("maxItems"), low + 2))
        count = low if depth > _DEEP else low + draw.below(min(high - low, 3) + 1)
        return [sample(schema.get("items", {}), draw, root=root, depth=depth + 1) for _ in range(min(count, 1_000))]
    if kind == "boolean":
        return draw.below(2) == 1
    if kind in ("integer", "number"):
        return _number(kind, schema, draw)
    return None if kind == "null" else _string(schema, draw)


def _number(kind: str, schema: dict[str, Any], draw: Draw) -> float | int:
    low, high = schema.get("minimum"), schema.get("maximum")
    step = schema.get("multipleOf")
    if isinstance(schema.get("exclusiveMinimum"), int | float):
        low = schema["exclusiveMinimum"] + 1
    if isinstance(schema.get("exclusiveMaximum"), int | float):
        high = schema["exclusiveMaximum"] - (1 if kind == "integer" else 1e-6)
    low = low if isinstance(low, int | float) else (min(0, high - 100) if isinstance(high, int | float) else 0)
    high = high if isinstance(high, int | float) else low + 100
    if kind == "number" and not step:
        return float(round(low + (high - low) * draw.unit(), 2)) if high - low >= 1 else float(low + (high - low) * draw.unit())
    step = step if isinstance(step, int | float) and step > 0 else 1
    first = -(-low // step)
    count = max(int(high // step - first), 0) + 1
    value = (first + draw.below(count)) * step
    return int(value) if kind == "integer" else value


def _string(schema: dict[str, Any], draw: Draw) -> str:
    if isinstance(schema.get("format"), str) and schema["format"] in _FORMATS:
        return _FORMATS[schema["format"]]
    text = " ".join(WORDS[draw.below(len(WORDS))] for _ in range(1 + draw.below(3)))
    low = min(_whole(schema.get("minLength"), 0), 100_000)
    while len(text) < low:
        text += " " + WORDS[draw.below(len(WORDS))]
    return text[: _whole(schema.get("maxLength"), len(text))]


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


def _branch(branches: list[Any], draw: Draw, depth: int) -> Any:
    if depth > _DEEP:
        for branch in branches:
            if isinstance(branch, dict) and branch.get("type") in ("null", "string", "integer", "number", "boolean"):
                return branch
    return branches[draw.below(len(branches))]


def _merged(schema: dict[str, Any], parts: list[Any], root: Any) -> dict[str, Any]:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("$ref"), str):
            part = _resolve(root, part["$ref"])  # noqa: PLW2901 - the part that is meant
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if key == "properties" and isinstance(value, dict):
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif key == "required" and isinstance(value, list):
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged.setdefault(key, value)
    return merged


def _resolve(root: Any, reference: str) -> Any:
    """Only within the document: nothing is ever fetched."""
    found = root
    if reference.startswith("#"):
        for part in reference[1:].split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    else:
        found = None
    return {} if found is None else found
