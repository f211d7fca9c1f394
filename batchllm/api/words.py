"""What the engine says, for programs: where a message names a flag of the command line, the key of the spec is meant."""

from __future__ import annotations

import re

_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: (rerun|keep))?")


def in_python(message: str) -> str:
    """`--on-change rerun` as `on_change="rerun"`, `--store` as `store`."""
    return _FLAG.sub(lambda found: found[1].replace("-", "_") + (f'="{found[2]}"' if found[2] else ""), message)
