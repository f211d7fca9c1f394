"""A tokenizer's vocabulary from a file that is already on this machine, verified, or none.

The traps, all in tiktoken's own loading: it downloads what it does not find, inside the running loop and without a timeout; it deletes a cached file
whose hash is wrong, so its cache folder must never be another package's; and it copies what it loads into a shared folder under /tmp.
So its loader is never called here: only its definition of each encoding is used, with our own reader in the loader's place.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from base64 import b64decode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha1, sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiktoken import Encoding

_IN_PACKAGES = {
    "litellm": "litellm_core_utils/tokenizers",
    "llama_index": "core/_static/tiktoken_cache",
}
"""Packages known to carry vocabulary files under tiktoken's cache names, and where."""


class _MissingError(Exception):
    """No verified file for this encoding is on this machine."""


def own_cache() -> Path:
    """Our cache folder: `BATCHLLM_CACHE`, else `~/.cache/batchllm`. It need not exist."""
    return Path(os.environ.get("BATCHLLM_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "batchllm"))  # noqa: PTH111, PTH118 - Path.expanduser raises without a home


def load(name: str, *, search: Sequence[Path] | None = None) -> Encoding | None:
    """The encoding (`o200k_base`, `cl100k_base`...) from a verified file, or None when there is none; never downloads, never deletes.

    `search`: folders to look in instead of the usual ones, which are `TIKTOKEN_CACHE_DIR`, our own cache, then installed packages that carry
    the files (found without importing them; such a file is copied to our cache). Takes 0.1 to 0.3 s the first time, nothing later.
    """
    return _load(name, None if search is None else tuple(search))


@lru_cache(maxsize=8)
def _load(name: str, search: tuple[Path, ...] | None) -> Encoding | None:
    from tiktoken import Encoding

    try:
        return Encoding(**_definition(name, search))
    except _MissingError:
        return None


def _definition(name: str, search: tuple[Path, ...] | None) -> dict[str, Any]:
    """tiktoken's own arguments of an encoding, ranks read by us: its constructor runs with our reader under the loader's name, its module stays as it is."""
    public = import_module("tiktoken_ext.openai_public")

    def read_ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
        return _ranks(_verified(sha1(url.encode(), usedforsecurity=False).hexdigest(), expected_hash, search))

    def run(constructor: Any) -> Any:
        return FunctionType(constructor.__code__, names)()

    names: dict[str, Any] = {**vars(public), "load_tiktoken_bpe": read_ranks, "data_gym_to_mergeable_bpe_ranks": _refuse}
    if name != "o200k_base":
        # o200k_harmony builds on o200k_base by calling it.
        names["o200k_base"] = lambda: run(public.o200k_base)
    constructor = public.ENCODING_CONSTRUCTORS.get(name)
    if constructor is None:
        raise _MissingError(name)
    definition: dict[str, Any] = run(constructor)
    return definition


def sources(name: str) -> list[tuple[str, str, str]]:
    """(URL, sha256, file name in a cache) of an encoding's files, as tiktoken names them. KeyError for an encoding that is not one file."""
    found: list[tuple[str, str, str]] = []
    public = import_module("tiktoken_ext.openai_public")

    def note(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
        if expected_hash is None:
            raise KeyError(name)
        found.append((url, expected_hash, sha1(url.encode(), usedforsecurity=False).hexdigest()))
        return {}

    def run(constructor: Any) -> Any:
        return FunctionType(constructor.__code__, names)()

    names: dict[str, Any] = {**vars(public), "load_tiktoken_bpe": note, "data_gym_to_mergeable_bpe_ranks": _refuse}
    if name != "o200k_base":
        names["o200k_base"] = lambda: run(public.o200k_base)
    try:
        run(public.ENCODING_CONSTRUCTORS[name])
    except _MissingError:
        raise KeyError(name) from None
    return found


def keep(data: bytes, *, expected_hash: str, file_name: str) -> Path:
    """Puts a fetched file into our cache. ValueError when it is not the one that tiktoken expects, OSError when it can't be written."""
    if sha256(data).hexdigest() != expected_hash:
        raise ValueError("its sha256 is not the one that tiktoken names: it was cut or changed on its way")
    folder = own_cache()
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder, file_name, data)
    if not (folder / file_name).is_file():
        raise OSError(f"{folder} can't be written to")
    _load.cache_clear()
    return folder / file_name


def _refuse(*_: object, **__: object) -> dict[bytes, int]:
    raise _MissingError("an encoding of two files")


def _ranks(data: bytes) -> dict[bytes, int]:
    """A vocabulary file: lines of `<base64 of the token> <rank>`."""
    pairs = (line.split() for line in data.splitlines() if line)
    return {b64decode(token): int(rank) for token, rank in pairs}


def _verified(file_name: str, expected_hash: str | None, search: tuple[Path, ...] | None) -> bytes:
    """The content of the first file of this name whose sha256 is right. Raises _MissingError."""
    if expected_hash is None:
        raise _MissingError(file_name)
    if search is not None:
        data = _first(search, file_name, expected_hash)
    else:
        own = own_cache()
        named = os.environ.get("TIKTOKEN_CACHE_DIR")
        data = _first([*([Path(named)] if named else []), own], file_name, expected_hash)
        if data is None:
            data = _first(_package_folders(), file_name, expected_hash)
            if data is not None:
                _keep(own, file_name, data)
    if data is None:
        raise _MissingError(file_name)
    return data


def _first(folders: Iterable[Path], file_name: str, expected_hash: str) -> bytes | None:
    for folder in folders:
        try:
            data = (folder / file_name).read_bytes()
        except OSError:
            continue
        if sha256(data).hexdigest() == expected_hash:
            return data
    return None


def _package_folders() -> Iterable[Path]:
    for package, inside in _IN_PACKAGES.items():
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):
            continue
        for location in (spec.submodule_search_locations if spec else None) or ():
            yield Path(location) / inside


def _keep(folder: Path, file_name: str, data: bytes) -> None:
    """Copies a file into our cache in one step; a home that can't be written to is no reason to fail."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=file_name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(folder / file_name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
