"""GET and POST of the API behind the same rules as all, in a context that holds no more than their views ask for.

A GET answers a few hundred bytes in microseconds; the hooks, the session and the signals around it take several times
as long. Only plain requests come this way: one with a cookie, an origin, a body of unknown length, or a token that
does not do, is left to Flask before anything is counted. The view is the same, and so are the handlers of its failures.
``tests/unit/api/test_light_path.py`` compares both ways.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, g
from flask.ctx import AppContext, RequestContext
from flask.globals import _cv_app, _cv_request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from app.auth.tokens import Token
from app.cache.predictions import Found
from app.config import Settings
from app.errors import CaskError, TooManyRequestsError
from app.telemetry import logs
from app.web import policy
from app.web.api import fast_path, kept_answers
from app.web.api.fast_path import BeforeFlask
from app.web.api.kept_answers import Kept, KeptAnswers, Source
from app.web.middleware import (
    admission,
    authentication,
    body_memory,
    conditional_requests,
    deadlines,
    rate_limits,
    request_context,
    request_ids,
    sessions,
)
from app.web.policy import Access, RoutePolicy

BLUEPRINT = "api"
METHODS = ("GET", "POST")
# Of these, jobs have an address each.
MAX_PATHS = 1024
NOT_STORED = (("Cache-Control", "no-store"),)
SCOPES = {Access.PREDICT: "predict", Access.ANY_TOKEN: authentication.ANY}


@dataclass(frozen=True)
class Route:
    """A view that may be called so, with what its address says."""

    rule: Rule
    values: dict[str, Any]
    view: Callable[..., Any]
    policy: RoutePolicy
    # What its answers depend on, where they may be given again.
    source: Source | None


@dataclass(frozen=True)
class Light:
    """One request that may come this way, as far as it can be known before anything of it is counted."""

    route: Route
    length: int
    deadline: float
    request_id: str
    token: Token | None

    @property
    def caller(self) -> tuple[str, float, frozenset[str]] | None:
        """Whose answers it may get."""
        return None if self.token is None else (self.token.id, self.token.created, self.token.scopes)


class LightContext(RequestContext):
    """Flask's own for a request without a cookie whose address is known; addresses are only made where a view asks."""

    def __init__(self, app: Flask, environ: WSGIEnvironment, light: Light) -> None:
        self.app = app
        self.request = app.request_class(environ)
        self.request.json_module = app.json
        self.request.url_rule, self.request.view_args = light.route.rule, light.route.values
        self.flashes = None
        self._session = sessions.CallersSession()
        self._after_request_functions = []
        self._cv_tokens = []
        # What the hooks would note.
        self.around = AppContext(app)
        noted = self.around.g
        noted.request_id, noted.deadline = light.request_id, light.deadline
        noted.token, noted.token_error, noted.is_session = light.token, None, False

    @functools.cached_property
    def url_adapter(self) -> Any:  # type: ignore[override]
        """As Flask makes it."""
        return self.app.create_url_adapter(self.request)

    def push(self) -> None:
        """Without the session and the look for a view, which are there."""
        self.around._cv_tokens.append(_cv_app.set(self.around))
        self._cv_tokens.append((_cv_request.set(self), self.around))


class LightPath(BeforeFlask):
    """WSGI middleware right before Flask, behind the fast path."""

    def __init__(
        self, application: WSGIApplication, app: Flask, settings: Settings, is_open: Callable[[], bool]
    ) -> None:
        """``is_open``: whether nobody else looks at every request; asked with the first one of each address."""
        super().__init__(application, app, settings)
        self._is_open = is_open
        self._kept = KeptAnswers()
        self._route = functools.lru_cache(MAX_PATHS)(self._look_up)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or leave the request to Flask as it came."""
        light = self._light(environ)
        if light is None:
            return self._application(environ, start_response)
        logs.request_id.set(light.request_id)
        try:
            source = light.route.source
            key = kept_answers.key(environ, light.caller) if source is not None and not light.length else None
            kept = self._kept.find(source, key) if source is not None and key is not None else None
            if kept is not None:
                return self._send_kept(kept, light, environ, start_response)
            with self._context(environ, light):
                try:
                    g.rate = self._rate(environ, light)
                    self._hold(light)
                    response = self._answer(light, key)
                except Exception as error:  # noqa: BLE001 - as Flask: the handlers tell each failure
                    return self._fail(error, environ, start_response)
                return self._send(response, light, environ, start_response)
        finally:
            logs.request_id.set("")

    @contextlib.contextmanager
    def _context(self, environ: WSGIEnvironment, light: Light) -> Iterator[None]:
        context = LightContext(self._app, environ, light)
        context.push()
        try:
            yield
        finally:
            context.pop(None)

    def _answer(self, light: Light, key: Hashable | None) -> Response:
        """The view's, kept under ``key`` where there is one."""
        route = light.route
        if route.source is None or key is None:
            return self._ask(route)
        mark = route.source.settled_mark()
        response = self._ask(route)
        self._kept.keep(key, mark, response, self._last_headers(route, response))
        return response

    def _ask(self, route: Route) -> Response:
        """What the view answers, or that the caller has it."""
        response = self._app.make_response(route.view(**route.values))
        return conditional_requests.compare(response) if route.policy.is_conditional else response

    def _fail(self, error: Exception, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._app.finalize_request(self._app.handle_user_exception(error))(environ, start_response)

    def _send_kept(
        self, kept: Kept, light: Light, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """What was answered before, to a caller who may have one more answer."""
        try:
            rate = self._rate(environ, light)
        except TooManyRequestsError as error:
            with self._context(environ, light):
                g.rate = error.rate
                return self._fail(error, environ, start_response)
        told = rate_limits.headers(rate) if rate is not None else ()
        own_id = (request_ids.HEADER, light.request_id)
        start_response("200 OK", [*kept.headers, *told, *kept.last_headers, own_id])
        return [kept.body]

    def _light(self, environ: WSGIEnvironment) -> Light | None:
        """The request, if it is one for this way."""
        if not fast_path.UNUSUAL.isdisjoint(environ) or fast_path.has_receivers():
            return None
        said: str = environ.get("CONTENT_LENGTH") or "0"
        length = int(said) if said.isdecimal() else -1
        if not 0 <= length <= self._settings.request_max_bytes:
            return None
        route = self._route(environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"])
        if route is None or not self._is_our_host(environ["wsgi.url_scheme"], environ.get("HTTP_HOST")):
            return None
        try:
            deadline = deadlines.moment(environ, self._settings)
            token = self._token(environ)
        except CaskError:
            return None
        scope = SCOPES[route.policy.access]
        if self._table is not None and (token is None or not (scope == authentication.ANY or scope in token.scopes)):
            return None
        return Light(route, length, deadline, request_ids.choose(environ.get(admission.REQUEST_ID_KEY, "")), token)

    def _rate(self, environ: WSGIEnvironment, light: Light) -> rate_limits.Rate | None:
        return self._count(environ, light.token) if light.route.policy.is_limited else None

    def _hold(self, light: Light) -> None:
        """What the body may take of memory, until Flask gives it back at the end. Raises as ``hold_bytes``."""
        if light.length:
            budget = self._app.extensions["budget"]
            hold = g.body_hold = budget.hold("body")
            body_memory.hold_bytes(budget, hold, light.length, light.deadline)

    def _send(
        self, response: Response, light: Light, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """What follows a view, in Flask's order."""
        found: list[Found] | None = g.get("found_answers")
        rows: list[tuple[str, str]] = []
        if found and response.status_code < 400:
            rows += request_context.headers(found)
        rate: rate_limits.Rate | None = g.get("rate")
        if rate is not None:
            rows += rate_limits.headers(rate)
        rows += self._last_headers(light.route, response)
        rows.append((request_ids.HEADER, light.request_id))
        if response.status_code != 200 or not response.is_sequence:
            response.headers.update(rows)
            return response(environ, start_response)
        start_response(response.status, [*response.headers.to_wsgi_list(), *rows])
        body = response.get_data()
        response.close()
        return [body]

    def _last_headers(self, route: Route, response: Response) -> list[tuple[str, str]]:
        """Those of every answer that this one does not have yet."""
        always = () if route.policy.is_storable else NOT_STORED
        return [row for row in (*always, *self._security_headers) if row[0] not in response.headers]

    def _look_up(self, path: str, method: str) -> Route | None:
        """The route of a path, if it is one for this way; looked up when first asked."""
        if not (method in METHODS and path.isascii() and self._is_open()):
            return None
        try:
            rule, values = self._app.url_map.bind("").match(path, method, return_rule=True)
        except HTTPException:
            return None
        found = policy.of(self._app, rule.endpoint)
        view: Callable[..., Any] | None = self._app.view_functions.get(rule.endpoint)
        if view is None or rule.endpoint.rpartition(".")[0] != BLUEPRINT:
            return None
        if found.access not in SCOPES or found.limits or found.is_page or found.is_form or found.max_body_bytes:
            return None
        source = kept_answers.source_of(self._app, view)
        return Route(rule, dict(values), self._app.ensure_sync(view), found, source)


def init_app(app: Flask, settings: Settings, is_open: Callable[[], bool]) -> None:
    """Put it before Flask, and behind all that is put there later; ``is_open`` as in ``LightPath``."""
    app.wsgi_app = LightPath(app.wsgi_app, app, settings, is_open)  # type: ignore[method-assign]
