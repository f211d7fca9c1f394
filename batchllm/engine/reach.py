"""Whether each model can be reached: is its key there, does the server take it, does it have the model, what do its headers and its clock say?

One free call a model (its server's list of models). The trap: a server without such a list is no broken one, and a key is never shown, whatever a server echoes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from batchllm import cost
from batchllm.core.errors import SpecError
from batchllm.core.nouns import REFUSALS, Fault, Kind
from batchllm.core.secret import Scrubber
from batchllm.core.wire import HttpReply, Transport
from batchllm.engine.access import Access, check_access, reachable, scrubber
from batchllm.engine.checkup import Check, fail, ok, warn
from batchllm.engine.keys import NoKey, read_keys
from batchllm.providers.catalog import OLLAMA_BASE, Page, list_call, read_list
from batchllm.providers.codecs import Unserved, codec_for
from batchllm.spec import JobSpec, ModelSpec
from batchllm.spec.model import HOSTS

_SKEW_SECONDS = 30.0
_CALL_SECONDS = 15.0
_SHOWN_MODELS = 3
NO_MODEL = "none"
"""The model id of a server that is asked without a job."""


def keys(spec: JobSpec, environ: Mapping[str, str]) -> tuple[list[Check], dict[str, Access], Scrubber]:
    """Whether each model's key is there (commands run); what could be reached with it."""
    found: list[Check] = []
    access: dict[str, Access] = {}
    for name in reachable(spec):
        model = spec.models[name]
        try:
            access |= check_access(spec, environ, [name])
        except SpecError as error:
            found += [fail(f"key of {name}", problem.message) for problem in error.problems]
            continue
        if model.provider != "simulated":
            found.append(ok(f"key of {name}", _where(model)))
    return found, access, scrubber(access, spec, environ)


def usual_keys(environ: Mapping[str, str]) -> tuple[list[Check], dict[str, tuple[ModelSpec, Access]]]:
    """Without a job: the usual variables of the providers."""
    found: list[Check] = []
    there: dict[str, tuple[ModelSpec, Access]] = {}
    hosts = {provider: host for provider, host in HOSTS.items() if host.key_env is not None}
    for provider, host in hosts.items():
        model = ModelSpec.model_validate({"provider": provider, "model": NO_MODEL})
        try:
            (key,) = read_keys(model, environ, Path.cwd(), {}).values()
        except NoKey as error:
            if environ.get(host.key_env or ""):
                found.append(fail(f"key of {provider}", str(error)))
            continue
        found.append(ok(f"key of {provider}", f"from {host.key_env}"))
        there[provider] = (model, Access(base_url=host.base_url, key=key, headers={}))
    if not there and not found:
        names = ", ".join(str(host.key_env) for host in hosts.values())
        found.append(warn("keys", f"none of {names} is set", "export one, or put it into .env; --simulate needs none"))
    return found, there


def _where(model: ModelSpec) -> str:
    if model.api_key_command is not None:
        return "from api_key_command"
    if model.api_key_file is not None:
        return f"from {model.api_key_file}"
    variables = model.key_envs()
    return f"from {' and '.join(variables)}" if variables else "none is sent"


async def endpoint(name: str, model: ModelSpec, access: Access, transport: Transport, scrub: Scrubber, *, job: str = "JOB") -> list[Check]:
    """One free call: is the server there, does it take the key, does it have the model, what do its headers and its clock say? `job`: how the user names it."""
    about = f"endpoint of {name}"
    base = access.base_url or (OLLAMA_BASE if model.provider == "ollama" else "")
    began = datetime.now(UTC)
    came = await transport.send(list_call(model.provider, base, access.key, access.headers, host=model.quirks), timeout_seconds=_CALL_SECONDS)
    if isinstance(came, Fault):
        return [fail(about, scrub.text(came.message), "check base_url and the network; a run would wait and stop after `outage_seconds`")]
    page = read_list(model.provider, came)
    checks = [_reached(about, model, page, came.status, scrub, job)]
    checks += _limits(about, model, base, came)
    checks += _clock(about, came, began)
    return checks


def _reached(about: str, model: ModelSpec, page: Page | Fault, status: int, scrub: Scrubber, job: str) -> Check:
    if isinstance(page, Fault):
        words = f"{status}: {scrub.text(page.message)[:300]}"
        if page.kind in (Kind.AUTH, Kind.MONEY):
            return fail(about, f"the key was refused: {words}", "check the key and what it may use (`api_key_env`)")
        if page.kind in REFUSALS:
            return warn(about, f"there, but says not now: {words}")
        return warn(about, f"there, but has no list of models ({words}): the key was not checked", f"batchllm try {job} asks one row")
    ids = [scrub.text(served.id) for served in page.models]
    if model.model == NO_MODEL or page.after is not None or _listed(model.model, ids):
        return ok(
            about,
            f"key accepted, {len(ids)} models"
            if model.model == NO_MODEL
            else f"key accepted, {model.model} is listed"
            if _listed(model.model, ids)
            else "key accepted",
        )
    shown = ", ".join(ids[:_SHOWN_MODELS]) + (f" and {len(ids) - _SHOWN_MODELS} more" if len(ids) > _SHOWN_MODELS else "")
    return warn(about, f"key accepted, but {model.model!r} is not among its models ({shown or 'none'})", f"batchllm models {job} lists them")


def _listed(model: str, ids: list[str]) -> bool:
    return any(listed in (model, f"{model}:latest") or cost.same_or_snapshot(model, listed) or cost.same_or_snapshot(listed, model) for listed in ids)


def _limits(about: str, model: ModelSpec, base: str, came: HttpReply) -> list[Check]:
    try:
        codec = codec_for(provider=model.provider, endpoint="chat", base_url=base, model=model.model, api_key=None, headers={}, host=model.quirks)
        hints = codec.hints(came.headers)
    except (Unserved, ValueError):
        return []
    said = [
        f"{hint.limit:,} {hint.dimension.replace('_', ' ')}" + (f" ({hint.remaining:,} left)" if hint.remaining is not None else "")
        for hint in hints
        if hint.limit
    ]
    return [ok(about, f"limits in its headers: {', '.join(said)}")] if said else []


def _clock(about: str, came: HttpReply, began: datetime) -> list[Check]:
    text = came.headers.get("date")
    try:
        theirs = parsedate_to_datetime(text) if text else None
    except ValueError:
        theirs = None
    if theirs is None:
        return []
    theirs = theirs if theirs.tzinfo is not None else theirs.replace(tzinfo=UTC)
    skew = (began - theirs).total_seconds()
    if abs(skew) > _SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        return [
            warn(
                "clock",
                f"{abs(skew):.0f} s {way} {about.removeprefix('endpoint of ')}'s server",
                "set this machine's clock: deadlines and daily budgets follow it",
            )
        ]
    return [ok("clock", f"within {max(abs(skew), 1):.0f} s of {about.removeprefix('endpoint of ')}'s server")]
