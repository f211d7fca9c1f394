"""`batchllm schema`: the JSON Schema of the spec."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Example:
  batchllm schema --to job.schema.json
Then begin a job file with this line, and the editor completes and checks it:
  # yaml-language-server: $schema=job.schema.json""",
)
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead of stdout.")
def command(to: Path | None) -> None:
    """Print the JSON Schema of a job spec, so that editors complete and check job files."""
    import orjson

    from batchllm.core.errors import SpecError
    from batchllm.spec import json_schema

    text = orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2).decode()
    if to is None:
        click.echo(text)
        return
    try:
        to.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{to}: can't be written: {error.strerror or error}") from None
