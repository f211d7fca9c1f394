"""`batchllm simulate`: a provider on a port, to try a job against before paying, and to test clients with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.core.nouns import Usage
    from batchllm.simulator.provider import PriceOf

_EPILOG = """\b
Example:
  batchllm simulate --port 8123 --rpm 3000 --tpm 400000 --faults 0.05
Then, in a job:
  models:
    mini:
      provider: openai-compatible
      base_url: http://127.0.0.1:8123/v1
      model: gpt-6-luna
      api_key_env: none
What it did:
  curl http://127.0.0.1:8123/_audit/summary

A prompt can ask for a fault by a marker in its last user message, e.g. [[sim:stall]] or [[sim:500*2]] for the first two times only;
--list-faults lists them all.
"""
_FLAT_INPUT_PICO = 100_000  # 0.10 USD per million tokens
_FLAT_OUTPUT_PICO = 400_000  # 0.40 USD per million tokens


def _list_faults(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from batchllm.simulator.faults import listing

    click.echo(listing())
    ctx.exit()


@click.command(epilog=_EPILOG, context_settings={"max_content_width": 120})
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    required=True,
    help="Port to listen on; 0 lets the system choose (the line that is printed tells).",
)
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Answers and faults follow from it and from the request alone.",
)
@click.option(
    "--latency-ms", type=click.FloatRange(min=0), metavar="MS", default=300.0, show_default=True, help="Median time to an answer (log-normal)."
)
@click.option("--rpm", type=click.IntRange(min=1), metavar="N", help="Requests per minute and model.  [default: unlimited]")
@click.option("--tpm", type=click.IntRange(min=1), metavar="N", help="Tokens per minute and model.  [default: unlimited]")
@click.option("--itpm", type=click.IntRange(min=1), metavar="N", help="Input tokens per minute and model.  [default: unlimited]")
@click.option(
    "--otpm", type=click.IntRange(min=1), metavar="N", help="Output tokens per minute and model, as they are produced.  [default: unlimited]"
)
@click.option("--rpd", type=click.IntRange(min=1), metavar="N", help="Requests per day and model.  [default: unlimited]")
@click.option("--tpd", type=click.IntRange(min=1), metavar="N", help="Tokens per day and model.  [default: unlimited]")
@click.option(
    "--burst-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Size of the limits' buckets, in seconds of their rate.",
)
@click.option(
    "--faults", type=click.FloatRange(0, 1), default=0.0, show_default=True, metavar="RATE", help="Probability that a request meets a fault."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Key that is let in. Given several times, each key has the limits for itself.  [default: any key]",
)
@click.option("--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults, help="List all faults and end.")
def command(port: int, host: str, keys: tuple[str, ...], **options: Any) -> None:
    """Serve a wire-compatible provider simulator.

    Deterministic answers, rate limits with the real headers and errors, faults on demand, and an audit log of what was executed, billed and delivered
    (GET /_audit as JSONL, GET /_audit/summary). It speaks OpenAI's wire (chat completions, responses, completions, embeddings, models; under /v1), Anthropic's
    (/v1/messages), Gemini's (/v1beta) and Ollama's (/api), each also streamed. Ends on Ctrl-C.
    """
    import asyncio

    from batchllm.core.nouns import Usage
    from batchllm.server.simulator import serve
    from batchllm.simulator import Settings, Simulator

    settings = Settings(keys=frozenset(keys) if keys else None, **options)
    price = price_of()
    price("sim-small", Usage(input_tokens=1, output_tokens=1))  # opens the price book now, not during the first request
    simulator = Simulator(settings, price=price)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(simulator, host=host, port=port))
    except OSError as error:
        click.echo(f"error: can't listen on {host}:{port}: {error.strerror or error}; choose another --port (0: any free one) or --host", err=True)
        sys.exit(2)


def price_of() -> PriceOf:
    """The audit's prices: those of the book for a model that it knows, else a flat 0.10 and 0.40 USD per million tokens. Looked up once per model."""
    known: dict[str, Any] = {}

    def price(model: str, usage: Usage) -> int | None:
        if model not in known:
            known[model] = _book(model)
        prices = known[model]
        if prices is None:
            return usage.input_tokens * _FLAT_INPUT_PICO + usage.output_tokens * _FLAT_OUTPUT_PICO
        cost: int = prices.price(usage)
        return cost

    return price


def _book(model: str) -> Any:
    import time

    from batchllm import cost

    return cost.book("simulated", model, utc=time.time())


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # no wheel for this interpreter; asyncio's own loop serves as well, only slower
        return None
    return uvloop.new_event_loop
