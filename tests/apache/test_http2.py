"""With HTTP2=on, HTTPS speaks that too, all the way to the engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, found none")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = servers.make_state_dir()
    given = {"CERTS_DIR": str(path / "tls"), "SERVICE_USER": servers.service_user()}
    command = [servers.ROOT / "apache" / "make_certificates.sh"]
    subprocess.run(command, env=servers.environment("dev", **given), check=True, capture_output=True)
    yield path / "tls"
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def server(folder: Path, port: int) -> Iterator[Server]:
    settings = {"TLS_CERTIFICATE": str(folder / "certificate.pem"), "TLS_KEY": str(folder / "key.pem")}
    # Nobody is refused because this machine is busy with other tests.
    settings |= {"REQUEST_MAX_WAIT_SECONDS": "60"}
    with servers.running("test", HTTPS_PORT=str(port), HTTP2="on", **settings) as running:
        yield running


def ask(folder: Path, port: int, path: str, *words: str) -> tuple[str, str, str]:
    """Version of HTTP, status and body, as curl sees them."""
    command = ["curl", "-sS", "--cacert", str(folder / "authority.pem"), "-w", "\n%{http_version} %{response_code}"]
    url = f"https://localhost:{port}{path}"
    done = subprocess.run([*command, *words, url], capture_output=True, text=True, timeout=60, check=True)
    body, _, said = done.stdout.rpartition("\n")
    version, _, status = said.partition(" ")
    return version, status, body


def test_http2_answers_as_http1_does(server: Server, folder: Path, port: int, sample_path: Path) -> None:
    image = ("-H", "Content-Type: image/jpeg", "--data-binary", f"@{sample_path}")
    asked = {"/v1/detect": image, "/livez": (), "/v1/models/none": ()}
    found = {
        version: {path: ask(folder, port, path, f"--http{version}", *words) for path, words in asked.items()}
        for version in ("1.1", "2")
    }
    unknown_length = (*image[:2], "-H", "Content-Length:", *image[2:])

    assert all(answer[0] == version for version in found for answer in found[version].values())
    assert [found["2"][path][1] for path in asked] == ["200", "200", "404"]
    assert [found["1.1"][path][1] for path in asked] == ["200", "200", "404"]
    assert json.loads(found["2"]["/v1/detect"][2]).keys() == json.loads(found["1.1"]["/v1/detect"][2]).keys()
    assert ask(folder, port, "/v1/detect", "--http2", *unknown_length)[1] == "200"
    # A stream that has ended is no caller who went away.
    assert " 499 " not in server.log()


@pytest.mark.usefixtures("server")
def test_many_streams_of_one_connection_are_all_answered(folder: Path, port: int, sample_path: Path) -> None:
    command = ["curl", "-sS", "--http2", "-Z", "--parallel-max", "8", "--cacert", str(folder / "authority.pem")]
    command += ["-H", "Content-Type: image/jpeg", "--data-binary", f"@{sample_path}", "-o", "/dev/null"]
    urls = f"https://localhost:{port}/v1/detect#[1-8]"

    done = subprocess.run(
        [*command, "-w", "%{response_code}\n", urls], capture_output=True, text=True, timeout=120, check=True
    )

    assert done.stdout.split() == ["200"] * 8
