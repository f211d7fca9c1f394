"""Ollama's paths that ask no model: what is there, what is loaded, and pull, create, copy and delete (protocols D.2).

A pull or create that goes wrong says so in a line of its stream, under HTTP 200. A model whose name begins with `missing` can't be pulled: to try that out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchllm.core import json
from batchllm.simulator.dialect import Aside, Problem
from batchllm.simulator.ollama import stamp
from batchllm.simulator.ollama_models import Shelf, Stored, tagged
from batchllm.simulator.script import Chunk
from batchllm.simulator.vectors import size_of

_VERSION = "0.33.0"
_STEP_SECONDS = 0.05
_STEPS = 4
_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_LINES = "application/x-ndjson"
_NOBODY = "missing"
_FIELDS = {"/api/chat": "messages", "/api/generate": "prompt", "/api/embed": "input", "/api/embeddings": "prompt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A whole answer, possibly in pieces over time."""

    chunks: tuple[Chunk, ...]
    status: int = 200
    kind: str = _JSON


class Desk:
    """Answers for one shelf."""

    def __init__(self, shelf: Shelf, window: int) -> None:
        self._shelf = shelf
        self._window = window

    def answer(self, request: Aside, utc: float) -> Served | Problem | None:
        """The answer; None when the path is not one of these, or asks a model."""
        path = request.path
        if path in _FIELDS:
            return self._idle(path, request, utc) if request.method == "POST" else None
        method = "GET" if request.method == "HEAD" else request.method
        match method, path:
            case "GET", "":
                return Served(chunks=(Chunk(data=b"Ollama is running"),), kind=_TEXT)
            case "GET", "/api/version":
                return _whole({"version": _VERSION})
            case "GET", "/api/tags":
                return _whole({"models": [_listed(model) for model in self._shelf.listed()]})
            case "GET", "/api/ps":
                return _whole({"models": [self._running(model, until) for model, until in self._shelf.loaded(utc)]})
        if path not in ("/api/show", "/api/pull", "/api/create", "/api/copy", "/api/delete", "/api/push"):
            return None
        if method != ("DELETE" if path == "/api/delete" else "POST"):
            return Problem(name="method", details={})
        document = _read(request.body)
        if document is None:
            return _invalid("invalid character in JSON body")
        if path == "/api/copy":
            return self._copy(document, utc)
        name = document.get("model") or document.get("name")
        if not isinstance(name, str):
            return _invalid("model is required")
        match path:
            case "/api/pull":
                return self._pull(name, document, utc)
            case "/api/create":
                return self._create(name, document, utc)
        found = self._shelf.get(name)
        if found is None:
            return Problem(name="model_not_found", details={}, model=name)
        match path:
            case "/api/show":
                return _whole(self._shown(found))
            case "/api/push":
                return _lines([{"status": "retrieving manifest"}, {"status": "pushing manifest"}, {"status": "success"}], document)
            case _:
                self._shelf.delete(name)
                return Served(chunks=(Chunk(data=b""),))

    def _idle(self, path: str, request: Aside, utc: float) -> Served | None:
        """A question without words loads the model (or unloads it: `keep_alive: 0`) and is answered at once."""
        # A long prompt is not read twice to find out that it is not empty.
        document = _read(request.body) if len(request.body) < 1000 else None
        model = document.get("model") if document is not None else None
        if document is None or not isinstance(model, str) or document.get(_FIELDS[path]) or document.get("images") or self._shelf.get(model) is None:
            return None
        if path == "/api/embed":
            return _whole({"model": model, "embeddings": []})
        if path == "/api/embeddings":
            return _whole({"embedding": []})
        unloads = document.get("keep_alive") in (0, "0")
        if unloads:
            self._shelf.unload(model)
        said = {"message": {"role": "assistant", "content": ""}} if path == "/api/chat" else {"response": ""}
        return _lines([{"model": model, "created_at": stamp(utc), **said, "done": True, "done_reason": "unload" if unloads else "load"}], document)

    def _pull(self, name: str, document: Mapping[str, Any], utc: float) -> Served:
        if name.startswith(_NOBODY):
            return _lines([{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}], document)
        model = Stored(name=tagged(name), modified=utc)
        self._shelf.put(model)
        layer = {"status": f"pulling {model.digest[:12]}", "digest": "sha256:" + model.digest, "total": model.size}
        steps = [{**layer, "completed": model.size * step // _STEPS} for step in range(1, _STEPS + 1)]
        ends = [{"status": status} for status in ("verifying sha256 digest", "writing manifest", "success")]
        return _lines([{"status": "pulling manifest"}, layer, *steps, *ends], document)

    def _create(self, name: str, document: Mapping[str, Any], utc: float) -> Served | Problem:
        base = document.get("from")
        if not isinstance(base, str) and not document.get("files"):
            return _invalid("neither 'from' or 'files' was specified")
        system, template, parameters = document.get("system"), document.get("template"), document.get("parameters")
        if isinstance(base, str):
            source = self._shelf.get(base)
            if source is None:
                return _lines([{"error": f"model '{base}' not found"}], document)
        else:
            source = Stored(name=tagged(name))
        model = Stored(
            name=tagged(name),
            modified=utc,
            base=source.name,
            system=system if isinstance(system, str) else source.system,
            template=template if isinstance(template, str) else source.template,
            parameters={**source.parameters, **(parameters if isinstance(parameters, dict) else {})},
        )
        self._shelf.put(model)
        layers = [f"using existing layer sha256:{source.digest}", f"creating new layer sha256:{model.digest}", "writing manifest", "success"]
        return _lines([{"status": status} for status in layers], document)

    def _copy(self, document: Mapping[str, Any], utc: float) -> Served | Problem:
        source, destination = document.get("source"), document.get("destination")
        if not isinstance(source, str) or not isinstance(destination, str):
            return _invalid("source and destination are required")
        found = self._shelf.get(source)
        if found is None:
            return Problem(name="model_not_found", details={}, model=source)
        self._shelf.put(replace(found, name=tagged(destination), modified=utc))
        return Served(chunks=(Chunk(data=b""),))

    def _shown(self, model: Stored) -> dict[str, Any]:
        lines = [f"FROM {model.base or model.name}", f"TEMPLATE {model.template}"]
        lines += [f"SYSTEM {model.system}"] if model.system else []
        settings = [(name, one) for name, value in model.parameters.items() for one in (value if isinstance(value, list) else [value])]
        document = {
            "modelfile": "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in settings)]),
            "parameters": "\n".join(f"{name:<30} {json.text(value)}" for name, value in settings),
            "template": model.template,
            "system": model.system,
            "details": {**_DETAILS, "parent_model": model.base},
            "model_info": {
                "general.architecture": "sim",
                "general.parameter_count": 1_000_000_000,
                "sim.context_length": self._window,
                "sim.embedding_length": size_of(model.name.removesuffix(":latest")),
            },
            "capabilities": ["completion", "tools", "vision", "thinking", "embedding"],
            "modified_at": stamp(model.modified),
        }
        return {name: value for name, value in document.items() if value != ""}

    def _running(self, model: Stored, until: float) -> dict[str, Any]:
        listed = _listed(model)
        del listed["modified_at"]
        return {**listed, "expires_at": stamp(until), "size_vram": model.size, "context_length": self._window}


_DETAILS = {"parent_model": "", "format": "gguf", "family": "sim", "families": ["sim"], "parameter_size": "1B", "quantization_level": "Q4_K_M"}


def _listed(model: Stored) -> dict[str, Any]:
    details = {**_DETAILS, "parent_model": model.base}
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": stamp(model.modified),
        "size": model.size,
        "digest": model.digest,
        "details": details,
    }


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except json.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _invalid(message: str) -> Problem:
    return Problem(name="invalid", details={"message": message})


def _whole(document: Mapping[str, Any], *, status: int = 200) -> Served:
    return Served(status=status, chunks=(Chunk(data=json.dumps(document)),))


def _lines(documents: list[dict[str, Any]], request: Mapping[str, Any]) -> Served:
    """Progress, a line a step; only the last word when no stream is wanted (an error is then a real one)."""
    if request.get("stream") is False:
        return _whole(documents[-1], status=500 if "error" in documents[-1] else 200)
    chunks = [Chunk(data=json.dumps(document) + b"\n", delay_seconds=_STEP_SECONDS if place else 0.0) for place, document in enumerate(documents)]
    return Served(chunks=tuple(chunks), kind=_LINES)
