"""Sessions: the same as Flask's for those who have one."""

from __future__ import annotations

from flask import Flask, session

from app.web.middleware import sessions


def make_app() -> Flask:
    app = Flask("sessions")
    app.secret_key = "only-for-this-test"  # noqa: S105 - signs nothing that matters
    sessions.init_app(app)

    @app.get("/count")
    def count() -> dict[str, int]:
        session["visits"] = session.get("visits", 0) + 1
        return {"visits": session["visits"]}

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    return app


def test_session_is_kept_from_request_to_request() -> None:
    client = make_app().test_client()

    assert [client.get("/count").json for _ in range(3)] == [{"visits": number} for number in (1, 2, 3)]


def test_forged_session_counts_for_nothing() -> None:
    client = make_app().test_client()
    client.set_cookie("session", "eyJ2aXNpdHMiOjQxfQ.aAAAAA.forged")

    assert client.get("/count").json == {"visits": 1}


def test_who_has_no_session_gets_no_cookie() -> None:
    assert "Set-Cookie" not in make_app().test_client().get("/plain").headers
