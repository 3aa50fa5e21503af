"""Keep STATE_DIR as a release left it, for tests/apache/test_upgrades.py: once for each release, from its checkout.

    python -m tests.record_state CHECKOUT tests/apache/states/0.1.0.tar.gz

CHECKOUT has its ``.venv``. Its service runs in prod, makes tokens, finishes one job and is cut off before another one.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import psutil

from tests import servers
from tests.servers import Server

FACTS = "facts.json"
SCOPES = ("--scope", "predict", "--scope", "admin")
# Made anew by each start, or by time.
LEFT_OUT = ("run", "cache", "built", "backups", "server.log")


def main() -> None:
    """Record one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    state_dir = servers.make_state_dir()
    facts = record(given.checkout.resolve(), state_dir)
    (state_dir / FACTS).write_text(json.dumps(facts, indent=2))
    with tarfile.open(given.target, "w:gz") as archive:
        for path in sorted(state_dir.iterdir()):
            if path.name not in LEFT_OUT:
                archive.add(path, path.name)
    print(f"  {given.target}: {given.target.stat().st_size} bytes")


def record(checkout: Path, state_dir: Path) -> dict[str, Any]:
    """Use the release of a checkout, then cut its power. What a later release must still know."""
    port = servers.free_port()
    environment = servers.environment(
        "prod",
        PORT=str(port),
        STATE_DIR=str(state_dir),
        SECRET_KEY=secrets.token_hex(32),
        MODEL_BUILD="off",
        # The longest there is; the test moves their times.
        JOBS_KEEP_SECONDS="31536000",
    )
    with (state_dir / "server.log").open("ab") as log:
        command = [checkout / "apache" / "serve.sh"]
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", port, state_dir, process, state_dir / "server.log")
    try:
        servers.wait_ready(server)
        server.token = _token(checkout, environment, "create", "camera-7", *SCOPES, "--never", "--json")["token"]
        revoked = _token(checkout, environment, "create", "camera-8", "--never", "--json")["token"]
        _token(checkout, environment, "revoke", "camera-8")
        image = (checkout / "models" / "samples" / "cone.jpg").read_bytes()
        finished = server.make_job(image, 2)
        servers.wait_until(lambda: _state(server, finished) == "succeeded", 60, "the job")
        results = server.ask(f"/v1/jobs/{finished}/results").body.decode().splitlines()
        (jobs,) = server.pids("jobs")
        os.kill(jobs, signal.SIGSTOP)
        waiting = server.make_job(image, 3)
    finally:
        for each in reversed([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]):
            each.kill()
        process.wait()
    return {
        "token": server.token,
        "revoked": revoked,
        "finished": finished,
        "results": [json.loads(line) for line in results],
        "waiting": waiting,
    }


def _state(server: Server, job: str) -> str:
    return str(server.ask(f"/v1/jobs/{job}").json["state"])


def _token(checkout: Path, environment: dict[str, str], *words: str) -> Any:
    command = [checkout / ".venv" / "bin" / "python", "-m", "app.cli", "token", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if "--json" in words else None


if __name__ == "__main__":
    main()
