"""One image or file as the body of a POST, answered before Flask: the same rules, the same answers, half the work.

The routes are /v1/<task>, and /v1/models/<name>/predict of a model with code that takes one file and nothing else.

What Flask does for each request (contexts, proxies, some twenty hooks, a request and a response object) costs more than
all that this route needs of it. Only plain requests come this way: one with a cookie, a form, JSON, a coding or a wrong
option is left to Flask before anything is counted. A failure behind that point is told by the same
handlers, within a context that is made for it. ``tests/unit/api/test_fast_path.py`` compares both ways.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, g, signals
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.sansio.utils import get_host

from app import tasks
from app.auth.tokens import Token, TokenTable
from app.cache.predictions import Found, Freshness
from app.config import Settings
from app.errors import CaskError, EngineBusyError, TooManyRequestsError
from app.inference import options
from app.inference.pipeline import Caller, Predictor
from app.models.routing import CanaryPreference
from app.tasks.params import TaskParams
from app.telemetry import logs
from app.web import policy
from app.web.api import answers, bodies, code_models
from app.web.middleware import (
    accept_language,
    admission,
    authentication,
    body_memory,
    deadlines,
    error_handlers,
    rate_limits,
    request_context,
    request_ids,
    security_headers,
    trusted_hosts,
)
from app.web.middleware.admission import Admitted, Work

# With one of these a request is not plain. Not of interest here: conditions, which no POST of ours has.
UNUSUAL = frozenset(
    {
        *("HTTP_COOKIE", "HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING", "HTTP_X_MODEL_CANARY"),
        "HTTP_ORIGIN",
    }
)
HOOKS = ("before_request_funcs", "after_request_funcs", "teardown_request_funcs", "url_value_preprocessors")
# Different ways to write the options of an address; callers write the same ones over and over.
MAX_QUERIES = 256
MAX_PATHS = 256
MAX_HOSTS = 64
CODE_ENDPOINT = "api.ask_model"
MAX_QUERY_CHARACTERS = 1000


class Question(Protocol):
    """What is asked about the body, its options read."""

    def answer(
        self, asked: Predictor, data: bytes, deadline: float, caller: Caller, request_id: str
    ) -> tuple[bytes, dict[str, float]]:
        """The body and the timings of the answer of 200."""


@dataclass(frozen=True)
class ImageQuestion:
    """One image for a model of a task. ``encode`` writes JSON."""

    task: str
    params: TaskParams
    encode: Callable[[Any], bytes]

    def answer(
        self, asked: Predictor, data: bytes, deadline: float, caller: Caller, request_id: str
    ) -> tuple[bytes, dict[str, float]]:
        """Raises as ``Predictor.predict``."""
        outcome = asked.predict(self.task, [data], self.params, deadline=deadline, caller=caller)
        return self.encode({**answers.document(outcome), "request_id": request_id}), outcome.timings


@dataclass
class Plain:
    """One request that may come this way, as far as it can be known before anything of it is counted or read."""

    environ: WSGIEnvironment
    question: Question
    length: int
    deadline: float
    request_id: str
    token: Token | None
    rate: rate_limits.Rate | None = None
    found: list[Found] = field(default_factory=list)

    # What the predictor asks of a caller; see ``request_context.RequestContext``.

    def work(self, kind: str, images: int, deadline: float) -> Work | None:
        """A block to be entered while the engine is asked."""
        admitted: Admitted | None = self.environ.get(admission.TICKET_KEY)
        return admitted.work(kind, images, deadline) if admitted else None

    def freshness(self) -> Freshness:
        """What Cache-Control and Pragma say."""
        return request_context.freshness(self.environ)

    def canary(self) -> CanaryPreference:
        """Nothing is said."""
        return ""

    def tell(self, found: Sequence[Found]) -> None:
        """Where the answers are from, for the header of the response."""
        self.found.extend(found)


class BeforeFlask:
    """What the ways before Flask have in common: whose host it is, whose token, and how much of a limit is left."""

    def __init__(self, application: WSGIApplication, app: Flask, settings: Settings) -> None:
        self._application, self._app, self._settings = application, app, settings
        accepts = trusted_hosts.acceptance(settings)
        self._is_our_host = functools.lru_cache(MAX_HOSTS)(lambda *said: accepts(get_host(*said).lower()))
        self._security_headers = () if app.extensions["is_under_apache"] else tuple(security_headers.HEADERS.items())

    def _token(self, environ: WSGIEnvironment) -> Token | None:
        """Whose token it is; None where none is shown or wanted. Raises TokenInvalidError, StateUnusableError."""
        text = authentication.shown_text(environ) if self._table is not None else ""
        return self._table.find(text) if text and self._table is not None else None

    @functools.cached_property
    def _table(self) -> TokenTable | None:
        found: TokenTable | None = self._app.extensions.get(authentication.EXTENSION)
        return found

    def _count(self, environ: WSGIEnvironment, token: Token | None) -> rate_limits.Rate | None:
        """Against the caller's limits; what is left of them. Raises TooManyRequestsError."""
        rates: rate_limits.Rates | None = self._app.extensions.get("rates")
        if rates is None or not (rates.per_address or token is not None):
            return None
        return rates.count(environ.get("REMOTE_ADDR", ""), token.id if token else "")


class FastPath(BeforeFlask):
    """WSGI middleware right before Flask."""

    def __init__(self, application: WSGIApplication, app: Flask, settings: Settings) -> None:
        super().__init__(application, app, settings)
        self._image_question = functools.lru_cache(MAX_QUERIES)(self._read_options)
        self._coded = functools.lru_cache(MAX_PATHS)(self._look_up)
        self._common = [("Cache-Control", "no-store"), *self._security_headers]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or leave the request to Flask as it came."""
        plain = self._plain(environ)
        if plain is None:
            return self._application(environ, start_response)
        logs.request_id.set(plain.request_id)
        try:
            body, headers = self._answer(plain)
        except EngineBusyError as error:
            # Under overload most answers are these.
            body, headers = self._refuse(error, plain)
            start_response("503 Service Unavailable", headers)
            return [body]
        except Exception as error:  # noqa: BLE001 - as Flask: the handlers tell each failure
            return self._tell(error, plain)(environ, start_response)
        finally:
            logs.request_id.set("")
        start_response("200 OK", headers)
        return [body]

    def _plain(self, environ: WSGIEnvironment) -> Plain | None:
        """The request, if it is one for this way."""
        path = environ.get("PATH_INFO", "") if environ["REQUEST_METHOD"] == "POST" else ""
        if not (path in self._tasks or self._coded(path)) or not UNUSUAL.isdisjoint(environ):
            return None
        kind, said = environ.get("CONTENT_TYPE", ""), environ.get("CONTENT_LENGTH") or ""
        length = int(said) if said.isdecimal() else 0
        if not (kind.islower() and ";" not in kind and bodies.holds_bytes(kind)) or has_receivers():
            return None
        said_host = environ["wsgi.url_scheme"], environ.get("HTTP_HOST")
        if not 0 < length <= self._settings.request_max_bytes or not self._is_our_host(*said_host):
            return None
        try:
            question = self._question(path, environ.get("QUERY_STRING", ""))
            deadline = deadlines.moment(environ, self._settings)
            token = self._token(environ)
        except CaskError:
            return None
        if question is None or (self._table is not None and (token is None or "predict" not in token.scopes)):
            return None
        request_id = request_ids.choose(environ.get(admission.REQUEST_ID_KEY, ""))
        return Plain(environ, question, length, deadline, request_id, token)

    def _question(self, path: str, query: str) -> Question | None:
        """What the address asks; None where it is odd. Raises CaskError."""
        if task := self._tasks.get(path):
            return self._image_question(task, query)
        given = _given(query)
        return None if given is None else code_models.file_question(self._predictor, self._coded(path), given)

    def _read_options(self, task: str, query: str) -> ImageQuestion | None:
        """None where one stands twice, or the query is odd. Raises OptionError."""
        given = _given(query)
        if given is None:
            return None
        return ImageQuestion(task, options.parse(task, given), self._app.json.encode)  # type: ignore[attr-defined]

    def _answer(self, plain: Plain) -> tuple[bytes, list[tuple[str, str]]]:
        """The body and headers of an answer of 200. Raises what the route raises behind Flask."""
        try:
            plain.rate = self._count(plain.environ, plain.token)
        except TooManyRequestsError as error:
            plain.rate = error.rate
            raise
        predictor = self._predictor
        budget = predictor.decoder.budget
        with budget.hold("body") as hold:
            body_memory.hold_bytes(budget, hold, plain.length, plain.deadline)
            data = _read(plain)
            body, timings = plain.question.answer(predictor, data, plain.deadline, plain, plain.request_id)
        return body, [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Server-Timing", answers.server_timing(timings)),
            *(request_context.headers(plain.found) if plain.found else ()),
            *(rate_limits.headers(plain.rate) if plain.rate is not None else ()),
            *self._common,
            (request_ids.HEADER, plain.request_id),
        ]

    def _refuse(self, error: EngineBusyError, plain: Plain) -> tuple[bytes, list[tuple[str, str]]]:
        """The body and headers of a refusal for overload."""
        error_handlers.log_failure(error)
        language = accept_language.accepted(plain.environ.get("HTTP_ACCEPT_LANGUAGE", ""))
        problem = error.to_problem(plain.request_id, accept_language.speaker(language))
        body: bytes = self._app.json.encode(problem)  # type: ignore[attr-defined]
        return body, [
            ("Content-Type", error_handlers.MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            *accept_language.headers(language).items(),
            *error_handlers.retry_after(error.retry_after_seconds).items(),
            *(rate_limits.headers(plain.rate) if plain.rate is not None else ()),
            *self._common,
            (request_ids.HEADER, plain.request_id),
        ]

    def _tell(self, error: Exception, plain: Plain) -> WSGIApplication:
        """The answer to a failure: by Flask's handlers and what follows them, but none of what stands before a view."""
        with self._app.request_context(plain.environ):
            logs.request_id.set(plain.request_id)
            g.request_id, g.deadline = plain.request_id, plain.deadline
            g.token, g.token_error, g.is_session = plain.token, None, False
            if plain.rate is not None:
                g.rate = plain.rate
            return self._app.finalize_request(self._app.handle_user_exception(error))

    @functools.cached_property
    def _tasks(self) -> Mapping[str, str]:
        """Path → task. Looked up with the first request: until then hooks may be added, of which this way has none."""
        if not self.is_open:
            return {}
        endpoints = {f"/v1/{name}": (name, f"api.{name}") for name in tasks.NAMES}
        return {path: name for path, (name, endpoint) in endpoints.items() if self._is_ours(endpoint)}

    def _look_up(self, path: str) -> str:
        """The name of the model in the address of one with code; empty for any other address."""
        if not (path.startswith("/v1/models/") and path.isascii() and self.is_open):
            return ""
        try:
            # A plugin may have an address of its own there.
            endpoint, values = self._app.url_map.bind("").match(path, "POST")
        except HTTPException:
            return ""
        return str(values["name"]) if endpoint == CODE_ENDPOINT and self._is_ours(endpoint) else ""

    def _is_ours(self, endpoint: str) -> bool:
        return policy.of(self._app, endpoint) == policy.PREDICTING_ROUTE and endpoint in self._app.view_functions

    @functools.cached_property
    def is_open(self) -> bool:
        """Whether nobody else looks at every request. Asked with the first one: until then hooks may be added."""
        return not self._app.debug and self._hooks() == self._own_hooks

    @functools.cached_property
    def _predictor(self) -> Predictor:
        found: Predictor = self._app.extensions["predictor"]
        return found

    def note_hooks(self) -> None:
        """What stands before and behind each view now is known here; with more, every request goes through Flask."""
        self._own_hooks = self._hooks()

    def _hooks(self) -> list[list[Any]]:
        return [list(getattr(self._app, name).get(scope, ())) for name in HOOKS for scope in (None, "api")]


def init_app(app: Flask, settings: Settings) -> FastPath | None:
    """Put it before Flask, and behind all that is put there later; None where browsers elsewhere are told by Flask."""
    if settings.cors_origins and not app.extensions["is_under_apache"]:
        return None
    app.wsgi_app = fast_path = FastPath(app.wsgi_app, app, settings)  # type: ignore[method-assign]
    return fast_path


def has_receivers() -> bool:
    """Whether somebody wants to hear of each request that Flask answers."""
    return bool(
        signals.request_started.receivers
        or signals.request_finished.receivers
        or signals.request_tearing_down.receivers
    )


def _given(query: str) -> dict[str, str] | None:
    if len(query) > MAX_QUERY_CHARACTERS or not query.isascii():
        return None
    # As Werkzeug reads it.
    rows = parse_qsl(query, keep_blank_values=True, errors="werkzeug.url_quote")
    given = dict(rows)
    return given if len(given) == len(rows) else None


def _read(plain: Plain) -> bytes:
    """The body. Raises ClientDisconnected where it ends early, and what the server raises."""
    data: bytes = plain.environ["wsgi.input"].read(plain.length)
    if len(data) < plain.length:
        raise ClientDisconnected
    return data
