"""A failure as a page: the same message and hint as the API gives, in the same layout as everything else."""

from __future__ import annotations

import math

from flask import Response, make_response, render_template

from app.errors import CaskError


def render(error: CaskError, request_id: str) -> Response:
    """The page for one failure, with its status; headers are the failure guard's."""
    page = render_template(
        "failure.html",
        error=error,
        request_id=request_id,
        retry_after_seconds=error.retry_after_seconds and max(1, math.ceil(error.retry_after_seconds)),
    )
    return make_response(page, error.status)
