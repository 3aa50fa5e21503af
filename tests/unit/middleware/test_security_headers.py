"""The policy that a plugin extends for its own pages."""

from __future__ import annotations

import pytest

from app.web.middleware import security_headers


@pytest.mark.parametrize("directive", ["script-src", "style-src"])
def test_inline_code_that_a_plugin_allows_is_not_forbidden_by_our_hashes(directive: str) -> None:
    """Browsers ignore 'unsafe-inline' where a hash stands beside it (W3C, Content Security Policy 3)."""
    policy = security_headers.extended({directive: ["'unsafe-inline'"]})

    parts = {name: sources.split() for name, _, sources in (part.partition(" ") for part in policy.split("; "))}
    assert parts[directive] == ["'self'", "'unsafe-inline'"]
    assert [each for name, found in parts.items() if name != directive for each in found if each.startswith("'sha256-")]
