"""Sign-in with a token, for people: from then on a signed cookie stands for it, until it ends or they sign out."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from flask import make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app.errors import TokenInvalidError
from app.texts import gettext_noop
from app.web.middleware import authentication, form_bodies
from app.web.openapi.operations import Body, a_page, describe
from app.web.pages import pages
from app.web.policy import PAGE_ROUTE, Access

# Nothing is required: where nobody needs a token, everybody is sent on.
FORM = {
    "type": "object",
    "properties": {
        "token": {"type": "string", "description": "An API token with the scope predict."},
        "next": {"type": "string", "description": "The page to go on to."},
    },
}
WRONG = gettext_noop("This token is not valid. Check it, or ask the operator for another.")
NOT_FOR_PAGES = gettext_noop("This token is not for predictions. Ask the operator for one with the scope predict.")
# Another site could send it in a person's name, to sign them in or out.
FORM_ROUTE = replace(PAGE_ROUTE, access=Access.PUBLIC, is_form=True)
ON = a_page("Redirects to the page that was asked for.")


@pages.get("/sign-in")
@describe("Sign in", a_page("The form."), policy=replace(PAGE_ROUTE, access=Access.PUBLIC), answers={303: ON})
def sign_in() -> Response:
    """The form; where nobody needs a token, or who has signed in, goes on at once."""
    if not authentication.is_required() or authentication.caller() is not None:
        return redirect(_next(), 303)
    return _form("")


@pages.post("/sign-in")
@describe(
    "Sign in with a token",
    policy=FORM_ROUTE,
    bodies=(Body("application/x-www-form-urlencoded", FORM),),
    answers={303: ON, 422: a_page("The form, with what is wrong.")},
)
def enter() -> Response:
    """Take the token, and remember who it is by a cookie."""
    if not authentication.is_required():
        return redirect(_next(), 303)
    authentication.forget()
    try:
        token = authentication.find(form_bodies.once(request.form).get("token", "").strip())
    except TokenInvalidError:
        return make_response(_form(WRONG), 422)
    if "predict" not in token.scopes:
        return make_response(_form(NOT_FOR_PAGES), 422)
    authentication.remember(token)
    return redirect(_next(), 303)


@pages.post("/sign-out")
@describe("Sign out", policy=FORM_ROUTE, answers={303: a_page("To the form.")})
def sign_out() -> Response:
    """Forget who it was; a copy of the cookie lets nobody in either."""
    authentication.forget()
    return redirect(url_for("pages.sign_in"), 303)


@pages.app_context_processor
def account() -> dict[str, object]:
    """For account.html: whose session this is."""
    token = authentication.caller() if authentication.is_session() else None
    return {"signed_in_as": token.name if token else ""}


def _form(error: str) -> Response:
    return make_response(render_template("sign_in.html", error=error, next=_next()))


def _next() -> str:
    """Where to go on: a page of this service, never another's."""
    requested = request.values.get("next", "")
    home = url_for("pages.try_image")
    parts = urlsplit(requested)
    is_path = requested.startswith("/") and not requested.startswith("//") and not parts.netloc
    is_ours = is_path and "\\" not in requested and requested.isprintable()
    return requested if is_ours and parts.path != url_for("pages.sign_in") else home
