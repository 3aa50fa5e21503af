"""One service that asks for tokens, as in prod, for all clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server


@pytest.fixture(scope="session")
def guarded() -> Iterator[Server]:
    """Apache with AUTHENTICATION=required; ``token`` has all scopes."""
    with servers.running("test", AUTHENTICATION="required", LOG_LEVEL="info") as server:
        yield server


@pytest.fixture
def description_path(guarded: Server, tmp_path: Path) -> Path:
    """/openapi.json of that service, as a file."""
    path = tmp_path / "openapi.json"
    path.write_bytes(guarded.ask("/openapi.json").body)
    return path
