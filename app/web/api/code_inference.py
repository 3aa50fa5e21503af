"""Inference of the Open Inference Protocol for models with code: tensors become items, answers become tensors."""

from __future__ import annotations

import json

from flask import Response

from app.inference import code_calls
from app.inference.code_calls import Call
from app.inference.pipeline import predictor
from app.web.api import code_tensors, infer_requests
from app.web.middleware.request_context import RequestContext


def infer(name: str, version: str | None) -> Response:
    """Read the tensors, ask, and answer with tensors."""
    caller = RequestContext()
    choice = code_calls.choose(predictor(), name, version, caller)
    signature = choice.manifest.signature
    asked, parts = infer_requests.read()
    infer_requests.check_outputs(asked, [row["name"] for row in code_tensors.outputs(signature)])
    for tensor in asked.inputs:
        code_calls.check_count(predictor(), tensor.shape[0])
    items = code_tensors.read(signature, asked, parts)
    # Clients add others of their own.
    given = asked.parameters
    options = {name: given[name] for name in signature["options"] if given.get(name) is not None}
    call = Call(name, version, items, options, infer_requests.deadline(asked.parameters), choice)
    called = code_calls.call(predictor(), call, caller)
    found = code_tensors.write(called.manifest.signature, [json.loads(answer) for answer in called.answers])
    return infer_requests.answer(asked, called.manifest, found, called.timings)
