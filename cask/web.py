"""What a plugin's Flask code says of its routes and asks of Cask. Loaded when one of its names is first used."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from flask import has_app_context, has_request_context
from werkzeug.datastructures import FileStorage

from app import tasks
from app.inference import code_calls
from app.inference.pipeline import Predictor, predictor
from app.model_code.schema_marks import BESIDE, KIND
from app.models.manifests import Manifest
from app.telemetry import metrics
from app.web import policy
from app.web.api import answers
from app.web.middleware import deadlines
from app.web.policy import Access

View = TypeVar("View", bound=Callable[..., Any])
# A FileStorage reads by __getattr__, so it is no IO[bytes] for mypy.
Input = bytes | bytearray | memoryview | str | Path | IO[bytes] | FileStorage
# Of a model with code: its parameters by name.
Parameters = Mapping[str, Any]

SCOPES = {"predict": Access.PREDICT, "admin": Access.ADMIN, "any": Access.ANY_TOKEN}
RATE = re.compile(r"([1-9][0-9]{0,8}) ?(?:per|/) ?(second|minute|hour|day)s?")
PACKAGE = re.compile(r"(cask_plugins\.(\w+))(\..*)?")
EVENT = re.compile(r"[a-z][a-z0-9_]{0,39}")
MOST_EVENTS = 50
# Plugin → the words that this process has counted.
_events: dict[str, set[str]] = {}


def public(view: View) -> View:
    """Open a route to callers without a token. Limits, sizes and deadlines hold as before.

    Raises TypeError where it stands above something that is no function.

    >>> @public
    ... def help_page() -> str:
    ...     return "Send a photograph."
    """
    return _noted(view, "public", access=Access.PUBLIC)


def scope(name: Literal["predict", "admin", "any"]) -> Callable[[View], View]:
    """Say which scope a token needs; ``predict`` where a route says nothing. ``any``: whatever its scopes.

    ``admin`` routes answer only ADMIN_NETWORKS. Raises ValueError for another name.

    >>> @scope("admin")
    ... def remove_all() -> str:
    ...     return "done"
    """
    if name not in SCOPES:
        raise ValueError(f"scope is {name!r}; expected one of {', '.join(SCOPES)}.")
    return lambda view: _noted(view, "scope", access=SCOPES[name])


def limit(rate: str) -> Callable[[View], View]:
    """Limit how often one caller (a token, or an address without one) may call a route; beyond it is 429.

    ``rate``: so many ``per second``, ``minute``, ``hour`` or ``day``. Counted over all processes, beside the limits of
    the service. May stand more than once. Raises ValueError for another text.

    >>> @limit("30 per minute")
    ... def claim() -> str:
    ...     return "noted"
    """
    found = RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None:
        raise ValueError(f'limit is {rate!r}; expected a text such as "30 per minute".')
    text = f"{found[1]} per {found[2]}"

    def note(view: View) -> View:
        return _noted(view, "limit", limits=(*policy.on(view).limits, text))

    return note


def predict(
    name: str, inputs: Input | Parameters | Sequence[Input | Parameters], *, version: str | None = None, **options: Any
) -> Any:
    """Ask a model of this service, within the request's deadline, admission, cache and canary.

    ``inputs``: one image (bytes, an uploaded file, or the path of a file) or a list of them. ``options``: those of the
    model's task; ``top=3`` is so many rows, whatever the task calls it.

    A model with code takes its parameters: ``predict("tickets", {"text": "Where is it?"}, top=2)``; where there is one
    parameter, its value will do.

    Returns what ``POST /v1/<task>`` has for each image: a dict for one, a list of dicts in their order for a list; of a
    model with code what it answers.
    Whatever it raises Cask answers: 404 no such model, 422 no image, 503 overloaded, 504 too late. Raises RuntimeError
    outside of a request.

    >>> def claim(photo: bytes) -> dict[str, object]:
    ...     return {"damage": predict("damage", photo, top=3)["predictions"]}
    """
    if not has_app_context():
        raise RuntimeError(
            "predict() was called outside of a request. Where a generator is sent as a stream, write"
            " Response(stream_with_context(lines())); in a thread of your own, with app.app_context()."
        )
    is_list = isinstance(inputs, list | tuple)
    given = inputs if isinstance(inputs, list | tuple) else (inputs,)
    asked = predictor()
    manifest = asked.find(None, name, version)
    task = manifest.task
    if manifest.code:
        rows = [_parameters(manifest, each) for each in given]
        found = code_calls.ask(asked, code_calls.Call(name, version, rows, options, _deadline(asked)))
        return found if is_list else found[0]
    data = [_bytes(each) for each in given]
    if "top" in options and (count := tasks.BY_NAME[task].count_option):
        options[count] = options.pop("top")
    outcome = asked.predict(task, data, options, model=name, version=version, deadline=_deadline(asked))
    results: list[dict[str, Any]] = answers.document(outcome)["results"]
    return results if is_list else results[0]


def _deadline(asked: Predictor) -> float:
    return deadlines.current() if has_request_context() else time.monotonic() + asked.timeout_seconds


def _parameters(manifest: Manifest, given: Any) -> dict[str, Any]:
    """The parameters of a model with code by name; files become bytes."""
    inputs = manifest.signature["inputs"]
    row = dict(given) if isinstance(given, Mapping) else dict.fromkeys(list(inputs)[:1], given)
    beside = [name for name in row if inputs.get(name, {}).get(KIND) in BESIDE]
    return {**row, **{name: _bytes(row[name]) for name in beside}}


def count(event: str, amount: float = 1) -> None:
    """Count something of this plugin: ``cask_plugin_events_total{plugin="claims", event="unreadable"}`` at /metrics.

    ``event``: small letters, digits and _, at most 40; a fixed word, no value of a request, as each is a series of its
    own: beyond 50 they count as ``other``. ``amount``: 0 or more. Raises ValueError for another event or amount.

    >>> def unreadable() -> None:
    ...     count("unreadable")
    """
    if not isinstance(event, str) or not EVENT.fullmatch(event):
        raise ValueError(f"count: event is {event!r}; expected a word of small letters, digits and _, at most 40.")
    if not 0 <= amount < math.inf:
        raise ValueError(f"count: amount is {amount!r}; expected 0 or more.")
    plugin = _plugin(sys._getframe(1).f_globals.get("__name__", ""))
    known = _events.setdefault(plugin, set())
    if event not in known and len(known) >= MOST_EVENTS:
        event = metrics.OTHER
    known.add(event)
    metrics.PLUGIN_EVENTS.add(amount, plugin=plugin, event=event)


class PluginSettings:
    """The settings of the plugin that asks, as its plugin.toml declares them: ``settings.max_photos``.

    Set by ``PLUGIN_<NAME>_MAX_PHOTOS``. Raises AttributeError for one that is not declared, and outside of a plugin.

    >>> def is_too_many(photos: list[bytes]) -> bool:
    ...     return len(photos) > settings.max_photos
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        values = _values(sys._getframe(1).f_globals.get("__name__", ""))
        if name not in values:
            raise AttributeError(
                f"settings.{name}: plugin.toml declares no [settings.{name}]; it has {', '.join(values) or 'none'}."
            )
        return values[name]

    def __repr__(self) -> str:
        return "<settings of the plugin that asks>"


settings = PluginSettings()


def _values(module: str) -> Mapping[str, Any]:
    found = PACKAGE.fullmatch(module)
    package = sys.modules.get(found[1]) if found else None
    values: Mapping[str, Any] | None = getattr(package, "__cask_settings__", None)
    if values is None:
        raise AttributeError(f"cask.settings is asked by {module!r}, which is no plugin that was loaded by Cask.")
    return values


def _plugin(module: str) -> str:
    found = PACKAGE.fullmatch(module)
    if found is None:
        raise ValueError(f"cask.count is called by {module!r}, which is no plugin that was loaded by Cask.")
    return found[2]


def _noted(view: View, name: str, **changes: Any) -> View:
    if not callable(view):
        raise TypeError(f"@{name} stands above {view!r}; expected a function.")
    here = policy.on(view).access
    if "access" in changes and here not in (Access.PREDICT, changes["access"]):
        raise ValueError(f"@{name} stands above a view that is for {here} already; expected one of both.")
    policy.put(view, dataclasses.replace(policy.on(view), **changes))
    return view


def _bytes(data: Any) -> bytes:
    if isinstance(data, str | Path):
        return Path(data).read_bytes()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if not callable(getattr(data, "read", None)):
        raise TypeError(f"predict: an input is {type(data).__name__}; expected bytes, a file, or the path of one.")
    content: bytes = data.read()
    return content
