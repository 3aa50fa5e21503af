"""Requests made from the description, with every check of schemathesis: ``python -m tests.description.run 200``.

Starts the whole service under Apache on a free port, unless ``run`` is given one that runs already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import servers

EXAMPLES = 200
CONFIGURATION = "tests/description/schemathesis.toml"


def run(url: str, examples: int, only: str = ".*", *, without: str = "") -> subprocess.CompletedProcess[str]:
    """Test every address with so many requests in each phase, always the same ones.

    ``only``: paths that fit this; ``without``: a check that is left out.
    """
    command = [str(Path(sys.executable).with_name("st")), "--config-file", CONFIGURATION, "run", f"{url}/openapi.json"]
    # What was found once must be found again, so the seed is fixed; the examples are not kept.
    options = ["--checks=all", f"--max-examples={examples}", "--seed=20261120"]
    options += [f"--include-path-regex={only}", *([f"--exclude-checks={without}"] if without else [])]
    environment = {**servers.environment("test"), "PYTHONPATH": str(servers.ROOT), "COLUMNS": "160"}
    return subprocess.run(
        [*command, *options], cwd=servers.ROOT, env=environment, capture_output=True, text=True, check=False
    )


def main(arguments: list[str]) -> int:
    """Print what was found; the exit status is that of schemathesis."""
    os.chdir(servers.ROOT)
    with servers.running("test") as server:
        done = run(server.url, int(arguments[0]) if arguments else EXAMPLES)
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
