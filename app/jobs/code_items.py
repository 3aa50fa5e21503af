"""Items of a job for a model with code: as they lie in its pack, and how one of them is answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from app.errors import OptionError
from app.inference import code_calls
from app.inference.code_calls import Call
from app.inference.code_items import lone_file
from app.inference.pipeline import Predictor
from app.jobs.jobs import Claim
from app.model_code.schema_marks import BESIDE, KIND

NAMES = ("model", "version")


def pack(signature: Mapping[str, Any], item: Mapping[str, Any], where: str) -> bytes:
    """One item with bytes where the model takes them; a file and nothing else lies in the pack as it is.

    Raises OptionError.
    """
    name = lone_file(signature)
    if not name:
        # Bytes in base64.
        return json.dumps(item, ensure_ascii=False, default=lambda value: base64.b64encode(value).decode()).encode()
    if list(item) != [name]:
        raise OptionError("%(field)s is missing, or not alone.", hint="Send it.", field=f"{where}{name}")
    found: bytes = item[name]
    return found


def unpack(signature: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """What ``pack`` made of it."""
    if name := lone_file(signature):
        return {name: data}
    beside = [name for name, schema in signature["inputs"].items() if schema.get(KIND) in BESIDE]
    found: dict[str, Any] = json.loads(data)
    return {name: base64.b64decode(value) if name in beside else value for name, value in found.items()}


def answer(predictor: Predictor, claim: Claim, deadline: float) -> dict[str, Any]:
    """Ask about one item; the answer as results of jobs have it. Raises as ``code_calls.call``."""
    name, version = (claim.params[key] for key in NAMES)
    options = {key: value for key, value in claim.params.items() if key not in NAMES}
    choice = code_calls.choose(predictor, name, version, None)
    item = unpack(choice.manifest.signature, claim.data)
    called = code_calls.call(predictor, Call(name, version, [item], options, deadline, choice), None)
    manifest = called.manifest
    identity = {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}
    return {"model": identity, "answer": json.loads(called.answers[0])}
