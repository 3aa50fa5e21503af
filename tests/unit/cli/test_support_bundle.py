"""The support bundle of a box with more than twenty planted secrets, whose service is down: none is inside."""

from __future__ import annotations

import base64
import gzip
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import servers

RANDOM = "kT7wPz3vQe"


@dataclass
class Box:
    """A checkout with secrets in all places where people leave them. ``planted``: where → what."""

    root: Path
    planted: dict[str, str] = field(default_factory=dict)

    def plant(self, where: str) -> str:
        """A new secret, to be put there."""
        self.planted[where] = f"{RANDOM}{len(self.planted):02}xY"
        return self.planted[where]

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Box:
    box = Box(tmp_path_factory.mktemp("box"))
    for name in ("app", "cask", "env", "requirements"):
        shutil.copytree(servers.ROOT / name, box.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (box.root / "models").symlink_to(servers.ROOT / "models")
    (box.root / "env/local.env").write_text(
        f"LOG_FILE=var/cask.log\n# mail password was {box.plant('comment of an env file')}\n"
        f"#SECRET_KEY={box.plant('setting that is commented out')}\nTOKEN_OF_SOMETHING={box.plant('unknown key')}\n"
    )
    box.write("secrets/secret_key", box.plant("file of SECRET_KEY") + "\n")
    box.write("secrets/smtp_password", box.plant("file of a password of no setting"))
    box.write(
        "secrets/tls_key", f"-----BEGIN PRIVATE KEY-----\n{box.plant('file of a key')}\n-----END PRIVATE KEY-----\n"
    )
    basic = base64.b64encode(f"admin:{box.plant('basic authentication')}".encode()).decode()
    coded = base64.b64encode(f"x{box.planted['file of SECRET_KEY']}".encode()).decode()
    box.write(
        "var/cask.log",
        f"""10:00:00 INFO web seen
GET /jobs?api_token={box.plant("query of a request")} HTTP/1.1
Authorization: Bearer {box.plant("bearer token")}
Authorization: Basic {basic}
X-Api-Token: cask_{box.plant("token of a caller")}
Cookie: session={box.plant("cookie")}; lang=de
Set-Cookie: id={box.plant("cookie that is set")}
redis://:{box.plant("password in a URL")}@store:6379/0 does not answer
proxy http://me:{box.plant("password of a proxy")}@proxy:3128
{{"password": "{box.plant("JSON")}", "nested": "{{\\"apiKey\\":\\"{box.plant("JSON within JSON")}\\"}}"}}
{{'db_password': '{box.plant("dict of Python")}'}}
-----BEGIN EC PRIVATE KEY-----
{box.plant("key in the log")}
-----END EC PRIVATE KEY-----
coded {coded}
10:00:01 ERROR engine the fault to be found
""",
    )
    box.write(
        "var/run/httpd/httpd.conf",
        f"ServerName x\nSetEnv API_KEY {box.plant('SetEnv')}\nSSLProxyPassword={box.plant('Apache')}\n",
    )
    return box


@pytest.fixture(scope="module")
def bundle(box: Box, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    path = tmp_path_factory.mktemp("out") / "bundle.tar.gz"
    known = {
        "ENV": "test",
        "PATH": os.defpath,
        "REDIS_URL": f"redis://:{box.plant('REDIS_URL')}@127.0.0.1:1/0",
        "SENTRY_DSN": f"https://{box.plant('SENTRY_DSN')}@sentry.example.org/5",
        "ALERTS_WEBHOOK_URL": f"https://hooks.example.org/services/{box.plant('ALERTS_WEBHOOK_URL')}",
        "MAIL_PASSWORD": box.plant("variable of another program"),
        "SECRET_KEY_FILE": "secrets/secret_key",
        "PORT": str(servers.free_port()),
    }
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(120)", str(box.root), f"--token={box.plant('arguments')}"]
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "support-bundle", str(path)],
            cwd=box.root,
            env=known,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        sleeper.kill()
        sleeper.wait()
    return path, done


def texts(path: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            yield member.name.partition("/")[2], file.read().decode()


def test_none_of_the_planted_secrets_is_inside(box: Box, bundle: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, done = bundle
    assert done.returncode == 0, done.stderr
    whole = gzip.decompress(path.read_bytes()).decode() + done.stderr + done.stdout

    found = {where: secret for where, secret in box.planted.items() if secret in whole}

    assert found == {}
    assert RANDOM not in whole
    assert base64.b64encode(f"x{RANDOM}".encode()).decode()[3:-4] not in whole
    assert len(box.planted) >= 24


def test_what_helps_is_inside(box: Box, bundle: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, done = bundle
    inside = dict(texts(path))

    assert set(inside) >= {
        *("CONTENTS.txt", "doctor.txt", "env/local.env", "env/prod.env", "files.txt", "httpd/httpd.conf", "log.txt"),
        *("machine.txt", "metrics.txt", "models.json", "processes.txt", "settings.txt", "status.json", "versions.txt"),
    }
    assert "10:00:01 ERROR engine the fault to be found" in inside["log.txt"]
    assert "there is no such setting" in inside["status.json"]
    assert "there is no such setting" in inside["problem.txt"]
    assert "Interpreter" in inside["doctor.txt"]
    assert "1: LOG_FILE=var/cask.log" in inside["env/local.env"]
    assert "4: TOKEN_OF_SOMETHING=[" in inside["env/local.env"]
    assert "flask " in inside["versions.txt"].lower()
    assert "SECRET_KEY" in inside["CONTENTS.txt"]
    assert inside["CONTENTS.txt"] in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_stays(box: Box, bundle: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, _ = bundle

    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "support-bundle", str(path)],
        cwd=box.root,
        env={"ENV": "dev", "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (done.returncode, "cannot be written: File exists" in done.stderr) == (1, True)
