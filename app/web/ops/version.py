"""/version: what exactly runs here; written by the image's build, asked of git elsewhere."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from functools import cache

from flask import Response, jsonify
from typing_extensions import TypedDict

from app import __version__
from app.config import ROOT
from app.web.openapi.operations import Answer, describe
from app.web.ops import ops
from app.web.policy import WATCHED_ROUTE, Access

# Written by docker/Dockerfile.
BUILD_FILE = ROOT / "build-info.json"


class Version(TypedDict):
    """What exactly runs here."""

    version: str
    revision: str
    created: str


@ops.get("/version")
@describe(
    "Version",
    Answer("What runs here.", Version),
    policy=replace(WATCHED_ROUTE, access=Access.ANY_TOKEN, is_microcached=True),
)
def version() -> Response:
    """Version, revision and moment of the build."""
    return jsonify(build())


@cache
def build() -> dict[str, str]:
    """``version``, ``revision`` (commit, or unknown) and ``created`` (or unknown)."""
    known = {"version": __version__, "revision": "unknown", "created": "unknown"}
    try:
        return {**known, **json.loads(BUILD_FILE.read_text())}
    except (OSError, ValueError):
        return {**known, "revision": _git_revision()}


def _git_revision() -> str:
    # The checkout may belong to another user than the service's; we only read a commit's name.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
