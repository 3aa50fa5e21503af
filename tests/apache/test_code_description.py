"""What /openapi.json promises of models with code holds: no failure of the server, no answer off its schema."""

from __future__ import annotations

import re

from tests.description.run import run
from tests.servers import Server

EXAMPLES = 15
ADDRESSES = r"^(/v1/models/(tickets|brightness|kinds)/predict|/v2/models/.*|/models/.*|/api|/v1/jobs)$"


def test_models_with_code_do_what_their_description_says(coded: Server) -> None:
    # A model may refuse what its types allow: an empty text, say.
    done = run(coded.url, EXAMPLES, ADDRESSES, without="positive_data_acceptance")

    assert done.returncode == 0, done.stdout[-40_000:] + done.stderr
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) >= 10, done.stdout[-3000:]
