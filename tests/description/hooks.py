"""What schemathesis cannot read from the description: real images, and tensors whose shape fits their data."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import schemathesis
from hypothesis import strategies as st

from app.inference import options
from app.inference.pipeline import MAX_EXPLAINED
from tests.fakes import picture

# A few are enough: what differs between images is tested elsewhere.
IMAGES = [picture(64, 48), picture(33, 7, "PNG"), picture(5, 80, "WEBP")]

schemathesis.openapi.format("binary", st.sampled_from(IMAGES))
schemathesis.openapi.format("base64-image", st.sampled_from([base64.b64encode(each).decode() for each in IMAGES]))
schemathesis.openapi.format("label", st.sampled_from(["barrier", "cone", "helmet", "sign", "vest"]))
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, st.sampled_from(IMAGES))


# The least time in which a machine under test surely answers; shorter ones are in tests/contract/test_error_shape.py.
LEAST_SECONDS = 20
TIMEOUT = "X-Request-Timeout"
KEY = "Idempotency-Key"
NUMBERS = itertools.count()
# REQUEST_MAX_IMAGES of ENV=test.
MAX_IMAGES = 32


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out what the description cannot say: unknown headers are allowed in HTTP (RFC 9110, section 5.1), an empty
    value in header, address or form counts as left out, and JSON-RPC answers no notification, not even a wrong one.
    """
    headers = case.headers or {}
    if case.path == "/v1/ensemble" and case.media_type == "multipart/form-data" and _asks_in_vain(case.body):
        return False
    # A list of one is that one; and where address and body both say something, the body counts.
    in_body = case.body if hasattr(case.body, "keys") else {}
    if _explains_many(case, in_body):
        return False
    # How many there may be is a setting, which a type of the earlier form cannot know.
    if isinstance(in_body.get("requests"), list) and len(in_body["requests"]) > MAX_IMAGES:
        return False
    if any(
        name in in_body or (isinstance(value, list) and len(value) < 2) for name, value in (case.query or {}).items()
    ):
        return False
    given = [*headers.values(), *_values(case.query)]
    if case.media_type == "multipart/form-data":
        given += _values(case.body)
        # A list becomes a part for each of its rows, and a field that stands twice is refused, known or not.
        if any(isinstance(value, list) and "image" not in name for name, value in in_body.items()):
            return False
    is_notification = case.path == "/api" and isinstance(case.body, dict) and "id" not in case.body
    is_unknown = any("unknown-property" in name.lower() for name in headers)
    return (
        not is_unknown and not is_notification and not any(isinstance(each, str) and not each.strip() for each in given)
    )


def _explains_many(case: Any, body: Any) -> bool:
    """An explanation is to be had for a few images at once; how many depends on another option."""
    explains = any(name in (case.query or {}) or name in body for name in ("explain", "explain_label"))
    images = body.get("images", body.get("image")) if body else None
    return explains and isinstance(images, list) and len(images) > MAX_EXPLAINED


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Allow time enough, and let shape and data of a tensor agree, and a job's options and task; JSON Schema cannot
    say that.
    """
    _allow_time(case.headers, TIMEOUT, LEAST_SECONDS)
    if case.path == "/v1/jobs" and case.meta is not None and case.meta.generation.mode.is_positive:
        if KEY in case.headers:
            # A key that came before belongs to another request.
            case.headers[KEY] = f"{case.headers[KEY][:200]}-{next(NUMBERS)}"
        _agree_on_a_task([holder for holder in (case.body, case.query) if isinstance(holder, dict)])
    if case.path == "/v1/ensemble" and case.meta is not None and case.meta.generation.mode.is_positive:
        # A form that is changed here counts as a wrong one afterwards: see filter_case.
        is_form = case.media_type == "multipart/form-data"
        holders = [each for each in (case.query, None if is_form else case.body) if isinstance(each, dict)]
        _agree_on_a_task(holders)
        for holder in holders:
            # Names are this service's own; a pattern cannot tell which.
            holder.pop("members", None)
            _allow_time(holder, "member_timeout", LEAST_SECONDS)
    if "/v2/" in case.path and isinstance(case.body, dict):
        _allow_time(case.body.get("parameters"), "timeout", LEAST_SECONDS * 1_000_000)
        for tensor in case.body.get("inputs") if isinstance(case.body.get("inputs"), list) else []:
            _agree(tensor)


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if hasattr(mapping, "values") else []


def _allow_time(holder: Any, name: str, least: float) -> None:
    value = holder.get(name) if hasattr(holder, "get") else None
    try:
        is_short = value is not None and not isinstance(value, bool) and 0 < float(value) < least
    except (TypeError, ValueError):
        return
    if is_short:
        holder[name] = str(least) if isinstance(value, str) else least


def _agree_on_a_task(holders: list[dict[str, Any]]) -> None:
    """A job has the options of its task; the description tells those of both. Nobody may be told of its end here."""
    task = next((holder["task"] for holder in holders if holder.get("task")), "detect")
    known = set(options.PARAMS_OF_TASK[task].model_fields)
    others = {name for kind in options.PARAMS_OF_TASK.values() for name in kind.model_fields} - known
    for holder in holders:
        for name in (others | {"webhook_url"}) & set(holder):
            del holder[name]


def _asks_in_vain(form: Any) -> bool:
    """Whether a form for an ensemble names members that nobody knows, mixes tasks, or leaves too little time."""
    if not isinstance(form, dict):
        return False
    if form.get("task", "detect") not in list(options.PARAMS_OF_TASK):
        return False
    before = dict(form)
    _agree_on_a_task([before])
    _allow_time(before, "member_timeout", LEAST_SECONDS)
    return "members" in form or before != form


def _agree(tensor: Any) -> None:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("data"), list) or not tensor["data"]:
        return
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(_is_side(side) for side in shape):
        return
    if tensor.get("name") == "image":
        tensor["shape"] = [len(tensor["data"]), *[1] * (len(shape) - 1)]
    elif tensor.get("name") == "pixels" and len(shape) in (3, 4):
        tensor["shape"] = [1] * (len(shape) - 1) + [3]
        tensor["data"] = (tensor["data"] * 3)[:3]


def _is_side(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and value > 0 and value == int(value)
