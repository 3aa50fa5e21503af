"""``flask predict --model NAME`` of a model with code: each file is one request, each answer one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli import terminal

if TYPE_CHECKING:
    from app.cli.service import Service

STANDARD_INPUT = Path("-")


def send(service: Service, model: dict[str, Any], paths: Sequence[Path], top: int | None) -> int:
    """Send each file: a JSON object, or the bytes of the one thing that the model takes. Returns how many failed."""
    address = f"/v1/models/{model['name']}/predict?version={model['version']}{'' if top is None else f'&top={top}'}"
    refused = 0
    for path in paths:
        try:
            body = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
        except OSError as error:
            raise terminal.Failure(
                f"{path} cannot be read: {error.strerror}.", next_step="Give another file."
            ) from None
        reply = service.ask(address, body)
        if reply.status == 200:
            click.echo(json.dumps({"file": str(path), "results": reply.document["results"]}, ensure_ascii=False))
        else:
            refused += 1
            terminal.print_note(f"FAIL: {path}: {reply.problem}")
    return refused
