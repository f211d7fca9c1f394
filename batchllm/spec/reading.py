"""Text of a spec -> plain data, the place of every part, and what is wrong with the text.

YAML is YAML 1.2: `no`, `off` and `07:00` are texts. Nodes are read instead of ruamel's own objects: nodes carry exact places and let every duplicate key
be named at once. JSON is read by the same reader. Keys are always text, so a model may be called `4`.
Traps: aliases can make a small file huge (a limit on visited nodes), and an alias may contain itself.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from batchllm.core.errors import Problem, SpecError
from batchllm.spec.findings import Path, Place, dotted
from batchllm.spec.toml_places import places_of

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MOST_NODES = 100_000
DEEPEST = 100
"""Nesting that every JSON writer and reader bears."""
_TAG = "tag:yaml.org,2002:"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True, kw_only=True)
class Read:
    """What came out of a text."""

    data: dict[str, Any]
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Problems that let the rest be read: duplicate keys, values no JSON can carry."""


def read(text: str, *, file: str | None) -> Read:
    """Reads a whole spec; the name's ending picks TOML, everything else is YAML (and so JSON). SpecError where nothing can be read."""
    if file is not None and file.lower().endswith(".toml"):
        return _read_toml(text, file)
    reader = _YamlReader(file)
    node = reader.compose(text)
    if node is None:
        raise SpecError(Problem(file=file, line=1, column=1, message="the spec is empty; it needs at least `models`"))
    value = reader.value(node, ())
    if not isinstance(value, dict):
        raise SpecError(Problem(file=file, line=1, column=1, message="a spec is made of keys and values, such as `models:`"))
    return Read(data=value, places=reader.places, problems=reader.problems)


def read_value(text: str, *, label: str, path: str) -> Any:
    """One value as YAML would read it, for `--set`: `5`, `null`, `{rpm: 5}`, plain text."""
    reader = _YamlReader(label, whole=False)
    try:
        node = reader.compose(text)
        value = None if node is None else reader.value(node, ())
    except SpecError as error:
        raise SpecError(
            Problem(file=label, path=path, message=f"can't be read as a YAML value ({error.problems[0].message}); put the value in quotes")
        ) from None
    if reader.problems:
        raise SpecError([Problem(file=label, path=path, message=problem.message) for problem in reader.problems])
    return value


class _YamlReader:
    def __init__(self, file: str | None, *, whole: bool = True) -> None:
        self.file = file
        self.whole = whole
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []
        self._visited = 0
        self._open: set[int] = set()

    def compose(self, text: str) -> Node | None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            node: Node | None = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            words = str(error.problem or error.context or "can't be read")
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
            raise SpecError(Problem(file=self.file, line=line, column=column, message=_explain(words, error.context, error.context_mark))) from None
        except YAMLError as error:
            raise SpecError(Problem(file=self.file, message=f"not YAML: {' '.join(str(error).split())}")) from None
        except RecursionError:
            raise SpecError(Problem(file=self.file, message="nested too deeply")) from None
        return node

    def problem(self, node: Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(file=self.file, line=mark.line + 1, column=mark.column + 1, path=dotted(path), message=message))

    def value(self, node: Node, path: Path, key: Node | None = None) -> Any:
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        self._visited += 1
        if self._visited > MOST_NODES:
            raise SpecError(Problem(file=self.file, message=f"more than {MOST_NODES:,} values (aliases counted as often as they are used)"))
        _check_depth(path, self.file)
        start, start_key = node.start_mark, (key or node).start_mark
        self.places[path] = Place(line=start.line + 1, column=start.column + 1, key_line=start_key.line + 1, key_column=start_key.column + 1)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self.problem(key or node, path, "contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            assert isinstance(node, SequenceNode)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: Node, path: Path) -> dict[str, Any]:
        from ruamel.yaml.nodes import ScalarNode

        merged: dict[str, Any] = {}
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, item in node.value:
            if key.tag == _TAG + "merge":
                merged = {**self._merged(item, path), **merged}
                continue
            if not isinstance(key, ScalarNode):
                self.problem(key, path, "a key must be text; put a text that begins with `{{` or `[` in quotes")
                continue
            name = self._text(key, str(key.value), path)
            if name in lines:
                self.problem(key, (*path, name), f"duplicate key, already given on line {lines[name]}; keep one of them")
                continue
            lines[name] = key.start_mark.line + 1
            result[name] = self.value(item, (*path, name), key)
        return {**merged, **result}

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        """What `<<` brings in; the first of several mappings wins."""
        from ruamel.yaml.nodes import SequenceNode

        result: dict[str, Any] = {}
        for item in reversed(node.value) if isinstance(node, SequenceNode) else [node]:
            value = self.value(item, path)
            if isinstance(value, dict):
                result.update(value)
            else:
                self.problem(item, path, "`<<` takes a mapping")
        return result

    def _scalar(self, node: Node, path: Path) -> Any:
        text = str(node.value)
        kind = str(node.tag).removeprefix(_TAG)
        try:
            match kind:
                case "str" | "timestamp":
                    return self._text(node, text, path)
                case "null":
                    return None
                case "bool":
                    return text.lower() in {"true", "yes", "on"}
                case "int":
                    return self._number(node, _int(text), path)
                case "float":
                    return self._number(node, float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")), path)
        except ValueError:
            pass
        self.problem(node, path, f"a value of type {kind} is not possible in a spec")
        return None

    def _number(self, node: Node, number: float, path: Path) -> int | float | None:
        if not _fits_json(number):
            self.problem(node, path, f"{node.value} is no number that JSON can carry; put it in quotes if it is a text")
            return None
        return number

    def _text(self, node: Node, text: str, path: Path) -> str:
        if _SURROGATE.search(text) is None:
            return text
        # JSON writes a character beyond 16 bits as two escapes; YAML reads them one by one.
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.problem(node, path, "half of a surrogate pair is no character")
            return text.encode(errors="replace").decode()


def _check_depth(path: Path, file: str | None) -> None:
    if len(path) > DEEPEST:
        raise SpecError(Problem(file=file, path=dotted(path[:3]), message=f"nested more than {DEEPEST} levels deep"))


def _int(text: str) -> int:
    text = text.replace("_", "")
    digits = text.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower())
    number = int(digits, base) if base else int(digits)
    return -number if text.startswith("-") else number


def _fits_json(number: float) -> bool:
    return -(2**63) <= number < 2**64 if isinstance(number, int) else math.isfinite(number)


def _explain(words: str, context: object, began: Any) -> str:
    """The parser's words, which speak of flow nodes and block ends, in those of somebody who made a slip."""
    if "mapping values are not allowed" in words:
        return "a second `:` in one line, or a line that is indented too far; put a text that contains `: ` in quotes"
    if "flow" in str(context) or "end of stream" in words:
        line = f" of line {began.line + 1}" if began is not None else ""
        return f"the quote{line} is not closed" if "quoted" in str(context) else f"the bracket{line} is not closed before this, or a comma is missing"
    if "<block end>" in words:
        return "this doesn't fit in here: indent keys of one object alike; in a text in quotes, write the quote twice"
    if "cannot start any token" in words:
        return f"{words}; indent with spaces, not tabs" if "\\t" in words else f"{words}; put the text in quotes"
    if "another document" in words:
        return "a spec is one YAML document; `---` begins a second one here"
    return f"{words} {context}" if context else words


_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def _read_toml(text: str, file: str) -> Read:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line, column = (int(place[1]), int(place[2])) if place and place[1] else (None, None)
        raise SpecError(Problem(file=file, line=line, column=column, message="not TOML: " + _TOML_PLACE.sub("", str(error)))) from None
    except RecursionError:
        raise SpecError(Problem(file=file, message="nested too deeply")) from None
    places = places_of(text)
    plain = _Plain(file, places)
    result = plain.value(data, ())
    return Read(data=result, places=places, problems=plain.problems)


def plain_data(data: Mapping[str, Any], *, file: str | None = None) -> Read:
    """Python or TOML values as plain JSON data: paths and times become text, tuples lists, Decimals numbers. SpecError for a value that contains itself."""
    plain = _Plain(file, {})
    return Read(data=plain.value(data, ()), problems=plain.problems)


class _Plain:
    def __init__(self, file: str | None, places: Mapping[Path, Place]) -> None:
        self.file = file
        self.places = places
        self.problems: list[Problem] = []

    def value(self, value: Any, path: Path) -> Any:
        _check_depth(path, self.file)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            # Also makes a plain str of an enum's member.
            return str.__str__(value)
        if isinstance(value, Mapping):
            return {str(key): self.value(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, type) and hasattr(value, "model_json_schema"):
            # A pydantic model stands for its schema (`output: {"schema": Model}`).
            return self.value(value.model_json_schema(), path)
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, Decimal):
            value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
        if isinstance(value, int | float) and _fits_json(value):
            return value
        place = self.places.get(path)
        self.problems.append(
            Problem(
                file=self.file,
                line=place.line if place else None,
                column=place.column if place else None,
                path=dotted(path),
                message=f"{type(value).__name__} {value!r:.60} is no value that JSON can carry",
            )
        )
        return None
