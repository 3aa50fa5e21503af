"""The same request for a terminal. The script's curl.js writes the same words; change both together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence


def command(url: str, names: Sequence[str], params: Mapping[str, object]) -> str:
    """A command that a shell takes as it stands, one part a line."""
    parts = [f"-F {shlex.quote('image=@' + file(name))}" for name in names]
    parts += [f"-F {shlex.quote(f'{key}={value}')}" for key, value in params.items()]
    return " \\\n  ".join(["curl", *parts, shlex.quote(url)])


def file(name: str) -> str:
    """A name behind ``-F part=@``, before a shell sees it."""
    # curl splits at ',' and ';' and trims blanks unless the name stands in double quotes.
    if re.fullmatch(r"[\w.+@%-]+", name, re.ASCII):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
