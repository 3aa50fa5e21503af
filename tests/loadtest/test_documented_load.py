"""The load test in docs/loadtest.md is run as it stands there, with no neighbours: it judges times."""

from __future__ import annotations

import pytest

from tests import servers
from tests.apache.test_documented_commands import Block, blocks_of, check, run

BLOCKS = blocks_of("docs/loadtest.md")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_documented_load_test_gives_what_the_document_says(served: servers.Server, block: Block) -> None:
    check(block, run(block, served.url))


def test_there_is_one() -> None:
    assert BLOCKS
