"""What requests and answers of the Open Inference Protocol have in common, whichever kind of model answers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flask import Response, jsonify, request

from app.errors import OptionError
from app.models.manifests import Manifest
from app.texts import Text
from app.web.api import answers, bodies, excerpts, tensors
from app.web.api.tensors import InferRequest, TensorError
from app.web.middleware import deadlines

HEADER_LENGTH = "Inference-Header-Content-Length"
SHARED_MEMORY = "shared_memory_region"
# A day.
MAX_TIMEOUT_MICROSECONDS = 86_400_000_000


def read() -> tuple[InferRequest, list[memoryview | None]]:
    """The JSON part, and the binary data of each input. Raises RequestError, TensorError, MediaTypeError."""
    body = bodies.read_whole(request)
    length = _header_length(len(body))
    asked = excerpts.fitting(InferRequest, bodies.load(body[:length]), Text("The JSON"), TensorError)
    _check_shared_memory(asked)
    return asked, tensors.binary_parts(asked.inputs, memoryview(body)[length:])


def check_outputs(asked: InferRequest, known: Sequence[str]) -> None:
    """Whether there are the outputs that the caller wants. Raises TensorError."""
    for requested_output in asked.outputs:
        if requested_output.name not in known:
            raise TensorError(
                "There is no output %(name)s.",
                hint="Outputs: %(known)s.",
                name=repr(excerpts.shown(requested_output.name, 40)),
                known=", ".join(known),
            )


def deadline(parameters: Mapping[str, Any]) -> float:
    """The request's deadline, or the protocol's ``timeout`` in microseconds where that is sooner.

    Raises OptionError.
    """
    timeout = bodies.whole(parameters.get("timeout"))
    if timeout is None:
        return deadlines.current()
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise OptionError(
            "timeout is %(value)s.", hint="Microseconds, a whole number; 0 for none.", value=repr(str(timeout)[:40])
        )
    # Longer than any deadline is as good as none.
    seconds = min(timeout, MAX_TIMEOUT_MICROSECONDS) / 1e6
    return min(deadlines.current(), time.monotonic() + seconds) if timeout else deadlines.current()


def answer(
    asked: InferRequest, manifest: Manifest, found: Mapping[str, np.ndarray], timings: dict[str, float]
) -> Response:
    """The tensors that were asked for, of all that were ``found``. Raises TensorError."""
    requested_outputs = {requested_output.name: requested_output for requested_output in asked.outputs}
    names = list(requested_outputs) or list(found)
    rows = [
        tensors.write(name, found[name], is_binary=tensors.wants_binary(requested_outputs.get(name), asked.parameters))
        for name in names
    ]
    document = {
        "model_name": manifest.name,
        "model_version": manifest.version,
        **({"id": asked.id} if asked.id is not None else {}),
        "parameters": {"digest": manifest.digest},
        "outputs": [head for head, _ in rows],
    }
    response = _binary(document, [data for _, data in rows]) if any(data for _, data in rows) else jsonify(document)
    response.headers["Server-Timing"] = answers.server_timing(timings)
    return response


def _binary(document: dict[str, Any], parts: list[bytes]) -> Response:
    head = json.dumps(document, allow_nan=False).encode()
    response = Response(b"".join((head, *parts)), content_type="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(head))
    return response


def _header_length(whole: int) -> int:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return whole
    if not text.isdecimal() or not text.isascii() or len(text) > 12 or int(text) > whole:
        raise TensorError(
            "%(name)s is %(value)s; the body has %(whole)s bytes.",
            name=HEADER_LENGTH,
            value=repr(text[:40]),
            whole=whole,
        )
    return int(text)


def _check_shared_memory(asked: InferRequest) -> None:
    shared = [input_.name for input_ in asked.inputs if SHARED_MEMORY in input_.parameters]
    shared += [output.name for output in asked.outputs if SHARED_MEMORY in output.parameters]
    if shared:
        where = excerpts.shown(shared[0], 40)
        raise TensorError("%(where)s lies in shared memory.", hint="Send the data with the request.", where=where)
