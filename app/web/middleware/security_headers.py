"""Security headers. Apache sets them on all it sends; under other servers they are set here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from flask import Flask, Response, current_app, request

from app.web import policy

# The SHA-256 of no text: Redoc adds empty <style> elements and fills them as our own scripts may fill any style sheet.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
# The only script in the page itself (layout.html): what mends a page whose files did not arrive cannot be one of them.
RELOAD = Path(__file__).resolve().parents[2] / "templates" / "reload.js"
RELOAD_HASH = base64.b64encode(hashlib.sha256(RELOAD.read_bytes().rstrip(b"\n")).digest()).decode()
# No other inline script or style, nothing from elsewhere; previews of chosen files are blob: and data: images.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{RELOAD_HASH}'; style-src 'self' {EMPTY_STYLE}; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Referrer-Policy: other sites learn nothing, and browsers still say the origin when they send one of our own forms.
POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def extended(additions: Mapping[str, Sequence[str]]) -> str:
    """The policy with further sources for some directives, for the pages of a plugin."""
    directives = (part.split() for part in CONTENT_SECURITY_POLICY.split(";"))
    found = {name: sources for name, *sources in directives}
    for name, sources in additions.items():
        # Browsers ignore 'unsafe-inline' beside a hash, and it allows what the hash does.
        needless = ("'none'", "'sha256-") if "'unsafe-inline'" in sources else ("'none'",)
        found[name] = [*(each for each in found.get(name, ()) if not each.startswith(needless)), *sources]
    return "; ".join(" ".join((name, *sources)) for name, sources in found.items())


def init_app(app: Flask) -> None:
    """Add the headers to every answer; answers other than files are not to be stored on the way."""
    if not app.extensions.get("is_under_apache"):
        app.after_request(_add)
    app.after_request(_forbid_storing)


def _add(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _forbid_storing(response: Response) -> Response:
    if not policy.of(current_app, request.endpoint).is_storable:
        response.headers.setdefault("Cache-Control", "no-store")
    return response
