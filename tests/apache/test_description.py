"""What /openapi.json promises holds: requests made from it, every answer compared with it. More: `make fuzz`."""

from __future__ import annotations

import re

from tests.description.run import run

# In each phase of each address. `make fuzz` sends 200.
EXAMPLES = 10


def test_service_does_what_its_description_says(served_url: str) -> None:
    done = run(served_url, EXAMPLES)

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) >= 30, done.stdout[-3000:]
