"""Where a model's key is read: a variable, a command's output, a file. What comes is a `Secret`; what goes wrong is words without it.

The trap: a command may print half a key and then fail, and its complaint may hold one, so neither its output nor its stderr is ever shown.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from batchllm.core.secret import Secret
from batchllm.spec import ModelSpec

_COMMAND_SECONDS = 60.0
"""A password manager may ask a person first."""
_LONGEST = 16_384


class NoKey(Exception):  # noqa: N818 - it is a problem of the spec a moment later
    """The key can't be had; the text says why and what to do."""


def read_keys(model: ModelSpec, environ: Mapping[str, str], folder: Path, ran: dict[str, str]) -> dict[str, Secret | None]:
    """The keys of a model by the variables that hold them; by "" one that comes from elsewhere, or None when none is sent. `ran`: outputs of commands that have run
    already, so that each runs once. Raises NoKey.
    """
    command, file = model.api_key_command, model.api_key_file
    if command is not None:
        if command not in ran:
            ran[command] = _output(command, environ, folder)
        return {"": _checked(ran[command], "what api_key_command printed")}
    if file is not None:
        return {"": _checked(_content(file, folder), f"the content of {file}")}
    keys: dict[str, Secret | None] = {}
    for variable in model.key_envs():
        key = _in_variable(variable, environ)
        for other, there in keys.items():
            if there is not None and there.reveal() == key.reveal():
                raise NoKey(f"{other} and {variable} hold the same key; each key is used at its own limits, so name it once")
        keys[variable] = key
    return keys or {"": None}


def _in_variable(variable: str, environ: Mapping[str, str]) -> Secret:
    text = environ.get(variable, "")
    if not text.strip():
        raise NoKey(
            f"no key: the environment variable {variable} is not set; export it, put it into .env beside the spec, name another with api_key_env, "
            "or try the job without a key: --simulate"
        )
    return _checked(text, f"the key in {variable}")


def _checked(text: str, what: str) -> Secret:
    text = text.strip()
    if not text:
        raise NoKey(f"{what} is empty: there is no key")
    if not (text.isascii() and text.isprintable()) or len(text) > _LONGEST:
        raise NoKey(f"{what} has characters that no header can carry; was it pasted whole? (a key is one line and nothing else)")
    return Secret(text)


def _output(command: str, environ: Mapping[str, str], folder: Path) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise NoKey(f"api_key_command can't be read as a command: {error}") from None
    if not words:
        raise NoKey("api_key_command is empty")
    try:
        # Without a shell: `sh -c '...'` says it where one is wanted. stdin stays, for a manager that asks.
        done = subprocess.run(  # noqa: S603 - the user's own command is what this is for
            words, cwd=folder, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        raise NoKey(f"api_key_command: there is no program {words[0]!r} on the path") from None
    except subprocess.TimeoutExpired:
        raise NoKey(f"api_key_command {words[0]!r} did not end within {_COMMAND_SECONDS:.0f} s") from None
    except OSError as error:
        raise NoKey(f"api_key_command {words[0]!r} can't be run: {error.strerror or error}") from None
    if done.returncode != 0:
        ended = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with exit status {done.returncode}"
        raise NoKey(f"api_key_command {words[0]!r} {ended} (what it said is not shown, it may hold a secret); run it by hand to see why")
    return done.stdout.decode("utf-8", "replace")


def _content(file: str, folder: Path) -> str:
    path = folder / os.path.expanduser(file)  # noqa: PTH111 - Path.expanduser raises without a home
    try:
        with path.open("rb") as opened:
            return opened.read(_LONGEST + 2).decode("utf-8-sig", "replace")
    except OSError as error:
        raise NoKey(f"api_key_file {file}: can't be read: {error.strerror or error}") from None
