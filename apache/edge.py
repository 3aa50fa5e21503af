"""Render what the edge runs: ``python apache/edge.py FOLDER PLACE`` writes FOLDER, to be read as PLACE.

The edge stands before the releases of a container host and hands requests to the one that serves; see
docs/decisions/0069-edge.md. A release renders it from its own settings while it is checked, so the edge itself needs
neither settings nor Python. The same settings give the same bytes: where they are what runs already, it is left alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import configure  # noqa: E402 - it lies beside this file

from app import config  # noqa: E402 - the line above makes it importable
from app.config import Settings  # noqa: E402
from app.web.middleware.security_headers import HEADERS  # noqa: E402

CONF = ROOT / "apache" / "conf"
INCLUDED = ("limits", "pool", "arrivals", "request-id", "errors", "tls", "edge")
NAMES = re.compile(r"\$\{(\w+)\}|<IfDefine !?(\w+)>")
# How far behind the first address of their network the edge is, and the releases may be: from 3 on where the network is
# small (docker/steps/edge.sh, release_address).
EDGE_PLACE = 2
RELEASE_PLACES = range(3, 116)
# For what arrives, in memory and on disk, until it is whole; the container's limit is beyond it.
ARRIVING_BYTES = 256 * 1024**2


def main(folder: Path, place: Path) -> int:
    """Write all files. Raises OSError."""
    settings = config.load()
    folder.mkdir(parents=True, exist_ok=True)
    configure.write_definitions(settings, folder)
    configure.write_error_documents(settings, folder)
    write_headers(folder)
    write_start(settings, folder, place)
    return 0


def write_headers(folder: Path) -> None:
    """The app's security headers, for what the edge says by itself: answers of a release carry an id already."""
    lines = [f'Header always set {name} "{value}" "expr=-z resp(\'X-Request-Id\')"' for name, value in HEADERS.items()]
    (folder / "headers.conf").write_text("\n".join(lines) + "\n")


def write_start(settings: Settings, folder: Path, place: Path) -> None:
    """httpd.conf: the definitions that the edge's files use, and no other; and those files."""
    used = {name for each in INCLUDED for pair in NAMES.findall((CONF / f"{each}.conf").read_text()) for name in pair}
    definitions = folder / "definitions.conf"
    own = {name: f'Define {name} "{value}"' for name, value in own_definitions(settings, place).items()}
    given = {line.split(" ")[1]: line for line in definitions.read_text().splitlines()}
    definitions.unlink()
    lines = [line for name, line in (given | own).items() if name in used]
    lines += [f'Include "{place / "edge.conf"}"', *workers(settings)]
    (folder / "httpd.conf").write_text("\n".join(lines) + "\n")
    # Copies: the edge's own image may be older.
    for each in INCLUDED:
        text = (CONF / f"{each}.conf").read_text()
        (folder / f"{each}.conf").write_text(text.replace("${CASK_ROOT}/apache/conf/", "${CASK_SERVER_ROOT}/"))


def workers(settings: Settings) -> list[str]:
    """One for each address that a release may have (docker/steps/edge.sh), so that Apache keeps what it looked up.

    Without, it asks the kernel for this machine's addresses at each request (getaddrinfo with AI_ADDRCONFIG), and waits
    there for as long as an engine makes or removes the network of a container. A release that does not answer for a
    moment is not set aside (retry, status): the link alone says who serves.
    """
    network, _, last = config.edge_address().rpartition(".")
    if not network:
        return []
    first = int(last) - EDGE_PLACE
    numbers = (first + place for place in RELEASE_PLACES if first + place < 255)
    urls = (f"http://{network}.{number}:{settings.port}" for number in numbers)
    return [f'<Proxy "{url}">\n    ProxySet retry=0 status=+I\n</Proxy>' for url in urls]


def own_definitions(settings: Settings, place: Path) -> dict[str, object]:
    """What is the edge's own; the place of links and logs is the parent of its configuration."""
    home = place.parent
    header, body = settings.server_header_timeout_seconds, settings.server_body_timeout_seconds
    return {
        "CASK_SERVER_ROOT": place,
        "CASK_EDGE_LINK": home / "current",
        "CASK_EDGE_CERTIFICATE": home / "certificate",
        "CASK_TLS_CERTIFICATE": home / "certificate",
        "CASK_TLS_KEY": home / "certificate",
        "CASK_EDGE_PORT": settings.port,
        "CASK_EDGE_LOG": "/proc/self/fd/1",
        "CASK_EDGE_RUN": "/tmp",  # noqa: S108 - of a container of its own
        "CASK_EDGE_TIMEOUT": int(settings.request_max_timeout_seconds + body),
        "CASK_EDGE_READ_TIMEOUT": f"header={header}-{header * 2},MinRate=500 body={body},MinRate=500",
        "CASK_ARRIVALS_FOLDER": "/var/lib/cask/run",
        "CASK_ARRIVALS_MAX_BYTES": max(ARRIVING_BYTES, 2 * settings.request_max_bytes),
        # Before the edge there is none.
        "CASK_EDGE": "none",
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
