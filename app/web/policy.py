"""The policy of one route: who may call it, how often, what its answers may be kept for. One value beside each view.

Guards, the description, ``flask routes`` and Apache's configuration read it; none of them knows a route's name. A view
that says nothing is guarded and limited like any other. A leaf.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from flask import Blueprint, Flask
    from werkzeug.routing import Rule

ATTRIBUTE = "cask_policy"
NOTHING = "(?!)"  # matches no path
PART = re.compile(r"<(?:\w+(?:\(.*?\))?:)?(\w+)>")
# In a rule as it is written, what no address holds in clear.
ESCAPED = re.compile(r"[\s\x00-\x1f\"#%?\\^`{|}\x7f]")


class Access(StrEnum):
    """Who may call a route where tokens are asked for."""

    PREDICT = "predict"
    ANY_TOKEN = "any token"  # noqa: S105 - a word for people
    # For operators: scope admin, and from ADMIN_NETWORKS only. Apache refuses others before us.
    ADMIN = "admin"
    # A lock of its own: a scraper is known by where it stands. Apache asks METRICS_ALLOW.
    METRICS = "METRICS_ALLOW"
    PUBLIC = "anybody"


@dataclass(frozen=True, kw_only=True)
class RoutePolicy:
    """What holds for one route, whatever its view does.

    ``access``: who may call it.
    ``is_limited``: requests count against the caller's rate limits.
    ``predicts``: a POST is admitted first, and shed while the engine has too much to do.
    ``is_microcached``: a plain GET has the same answer for everybody for a moment.
    ``is_conditional``: a GET has an ETag, and answers 304 to callers that have that answer.
    ``is_storable``: proxies may store the answer, as its own headers say.
    ``is_own_host_only``: refused under a host name that is not ours.
    ``is_page``: failures are told as a page, whatever the caller accepts.
    ``is_form``: refused when a page of another site sends it, with or without a session.
    ``limits``: limits of this route alone, such as ``30 per minute``, for each token, or address without one.
    ``max_body_bytes``: less than REQUEST_MAX_BYTES; None is that setting.
    """

    access: Access = Access.PREDICT
    is_limited: bool = True
    predicts: bool = False
    is_microcached: bool = False
    is_conditional: bool = False
    is_storable: bool = False
    is_own_host_only: bool = True
    is_page: bool = False
    is_form: bool = False
    limits: tuple[str, ...] = ()
    max_body_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError for what no route can have."""
        if not isinstance(self.access, Access):
            raise TypeError(f"access is {self.access!r}; expected one of {', '.join(map(str, Access))}, as an Access.")
        for name, value in vars(self).items():
            if name.startswith(("is_", "predicts")) and not isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; expected True or False.")
        if not isinstance(self.limits, tuple) or not all(isinstance(each, str) for each in self.limits):
            raise TypeError(f'limits is {self.limits!r}; expected a tuple of texts such as "30 per minute".')
        if self.limits and not self.is_limited:
            raise ValueError(f"limits is {self.limits!r} and is_limited False; expected one of them.")
        size = self.max_body_bytes
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise ValueError(f"max_body_bytes is {size!r}; expected a number of bytes.")

    @property
    def needs_token(self) -> bool:
        """Whether a token is wanted where tokens are asked for."""
        return self.access not in (Access.PUBLIC, Access.METRICS)

    def rules(self) -> list[str]:
        """The rules in force beside ``access``, a word each."""
        words = {
            "limited": self.is_limited,
            "admitted": self.predicts,
            "microcached": self.is_microcached,
            "etag": self.is_conditional,
            "storable": self.is_storable,
            "any-host": not self.is_own_host_only,
            "page": self.is_page,
            "form": self.is_form,
            f"body<={self.max_body_bytes}": self.max_body_bytes is not None,
        }
        own = [text.replace(" per ", "/").replace(" ", "") for text in self.limits]
        return [*(word for word, is_in_force in words.items() if is_in_force), *own]


GUARDED_ROUTE = RoutePolicy()
# What does not exist needs no token; asking for it counts, and is answered under our own names only.
NO_ROUTE = RoutePolicy(access=Access.PUBLIC)
# What machines watch for their own sake, under any name.
WATCHED_ROUTE = RoutePolicy(access=Access.PUBLIC, is_limited=False, is_own_host_only=False)
# Files as they lie on disk: a caller over its limit may still see the page.
FILE_ROUTE = RoutePolicy(access=Access.PUBLIC, is_limited=False, is_storable=True)
PREDICTING_ROUTE = RoutePolicy(predicts=True)
PAGE_ROUTE = RoutePolicy(is_page=True)


def of(app: Flask, endpoint: str | None) -> RoutePolicy:
    """The policy of an endpoint: its view's own, else its blueprint's; that of no route for None."""
    if endpoint is None:
        return NO_ROUTE
    own: RoutePolicy | None = getattr(app.view_functions.get(endpoint), ATTRIBUTE, None)
    if own is not None:
        return own
    shared: RoutePolicy = getattr(app.blueprints.get(endpoint.rpartition(".")[0]), ATTRIBUTE, GUARDED_ROUTE)
    return shared


def on(view: Callable[..., Any]) -> RoutePolicy:
    """The policy that a view has so far; that of a view that says nothing else."""
    found: RoutePolicy = getattr(view, ATTRIBUTE, GUARDED_ROUTE)
    return found


def place(view: Callable[..., Any]) -> str:
    """``/srv/shop/views.py, line 7: ``; nothing of what has no code of its own."""
    code = getattr(inspect.unwrap(view), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}: " if code else ""


def put(holder: Callable[..., Any] | Blueprint, policy: RoutePolicy) -> None:
    """Note the policy of a view, or of those views of a blueprint that have none of their own."""
    setattr(holder, ATTRIBUTE, policy)


class Paths:
    """Whether a path belongs to some routes, for what stands before Flask.

    Looked up when first asked: until then, routes may be added. ``expression``: one of the functions below.
    """

    def __init__(self, app: Flask, expression: Callable[[Flask], str]) -> None:
        self._app, self._expression = app, expression

    def __contains__(self, path: object) -> bool:
        return self._compiled.fullmatch(str(path)) is not None

    @functools.cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._expression(self._app))


def routes(app: Flask) -> Iterator[tuple[Rule, RoutePolicy]]:
    """Every route that has a view, with its policy; others only name an address, and answer nothing."""
    return ((rule, of(app, rule.endpoint)) for rule in app.url_map.iter_rules() if rule.endpoint in app.view_functions)


def predicting(app: Flask) -> str:
    """A regular expression for the whole path of every POST that predicts, and does not answer a page."""
    return _either(rule for rule, policy in routes(app) if policy.predicts and not policy.is_page)


def predicting_pages(app: Flask) -> str:
    """The same, of those that answer a page."""
    return _either(rule for rule, policy in routes(app) if policy.predicts and policy.is_page)


def microcached(app: Flask) -> str:
    """A regular expression for the whole path of every route whose answers are kept for a moment."""
    return _either(rule for rule, policy in routes(app) if policy.is_microcached)


def _either(rules: Iterable[Rule]) -> str:
    return "|".join(sorted({pattern(rule) for rule in rules})) or NOTHING


def template(rule: str) -> str:
    """A rule as OpenAPI writes it: ``/v1/models/{name}``; a blank or a brace of its own as ``%20`` and ``%7B``."""
    escaped = ESCAPED.sub(lambda found: quote(found[0]), rule)
    return PART.sub(r"{\1}", escaped)


def pattern(rule: Rule) -> str:
    """A regular expression for the paths of a rule such as ``/v1/models/<name>``, for Python and for Apache."""
    found, end, text = "", 0, rule.rule
    for part in PART.finditer(text):
        found += re.escape(text[end : part.start()])
        found += "[^/]+" if rule._converters[part[1]].part_isolating else ".+"
        end = part.end()
    # A quote would end the expression in Apache's configuration.
    return (found + re.escape(text[end:])).replace('"', r"\x22")
