"""`make secrets` and `make certs` make what is missing, leave what is there alone, and say what they did."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from app.config import ROOT
from app.host import certificates
from tests.certificates import Authority


def run(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / script), *arguments]
    given = {"PATH": os.environ["PATH"], "ENV": "prod", **environ}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def secrets(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run("docker/steps/secrets.sh", *arguments, SECRETS_DIR=str(folder), **environ)


def certs(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return run("apache/make_certificates.sh", *names, CERTS_DIR=str(folder))


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_missing_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = secrets(folder, JOBS_WEBHOOK_HOSTS="example.com")
    made = texts(folder)
    (folder / "secret_key").chmod(0o644)

    second = secrets(folder, JOBS_WEBHOOK_HOSTS="example.com")

    assert first.returncode == 0, first.stderr
    assert made.keys() == {"secret_key", "jobs_webhook_secret"}
    assert len(set(made.values())) == 2
    assert all(len(text) == 64 for text in made.values())
    assert first.stdout.count("made ") == 2
    assert texts(folder) == made
    assert "made " not in second.stdout
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_key_is_changed_in_three_steps_and_no_step_comes_twice(tmp_path: Path) -> None:
    secrets(tmp_path)
    old = texts(tmp_path)["secret_key"]

    assert secrets(tmp_path, ROTATE="2").returncode == 2
    assert secrets(tmp_path, ROTATE="1").returncode == 0
    new = texts(tmp_path)["secret_key_fallback"]
    assert texts(tmp_path) == {"secret_key": old, "secret_key_fallback": new}
    assert secrets(tmp_path, ROTATE="1").returncode == 2
    assert secrets(tmp_path, ROTATE="2").returncode == 0
    assert texts(tmp_path) == {"secret_key": new, "secret_key_fallback": old}
    assert secrets(tmp_path, ROTATE="3").returncode == 0
    assert texts(tmp_path) == {"secret_key": new}
    assert "needs ROTATE to be 1, 2 or 3" in secrets(tmp_path, ROTATE="4").stderr
    assert new != old


def test_a_certificate_is_made_for_its_names_and_stays(tmp_path: Path) -> None:
    first = certs(tmp_path, "box.example", "10.0.0.7", "fd00::1")
    made = texts(tmp_path)
    second = certs(tmp_path, "10.0.0.7")

    assert first.returncode == 0, first.stderr
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    assert (tmp_path / "authority.key").stat().st_mode & 0o077 == 0
    assert certificates.pair_fault(tmp_path / "certificate.pem", tmp_path / "key.pem") == ""
    assert f"curl --cacert {tmp_path}/authority.pem" in first.stdout
    assert second.returncode == 0
    assert texts(tmp_path) == made
    # Python's own look at it, as callers do.
    ssl.create_default_context(cafile=tmp_path / "authority.pem")
    verify = ["openssl", "verify", "-CAfile", tmp_path / "authority.pem", "-verify_ip", "10.0.0.7"]
    subprocess.run([*verify, tmp_path / "certificate.pem"], check=True, capture_output=True)


def test_another_name_needs_another_certificate_of_the_same_authority(tmp_path: Path) -> None:
    certs(tmp_path)
    before = texts(tmp_path)

    assert "made " in certs(tmp_path, "other.example").stdout

    after = texts(tmp_path)
    assert after["authority.pem"] == before["authority.pem"]
    assert after["certificate.pem"] != before["certificate.pem"]


def test_files_of_others_are_not_written_over(tmp_path: Path) -> None:
    certs(tmp_path)
    (tmp_path / "others").mkdir()
    foreign = Authority(tmp_path / "others").sign("localhost")
    (tmp_path / "certificate.pem").write_bytes(foreign.certificate.read_bytes())

    refused = certs(tmp_path)

    assert refused.returncode == 2
    assert "was not made by" in refused.stderr
    assert (tmp_path / "certificate.pem").read_bytes() == foreign.certificate.read_bytes()


@pytest.mark.parametrize("name", ["a;b", "a b", "$(id)", "ü"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    refused = certs(tmp_path, name)

    assert refused.returncode == 2
    assert "neither a host name nor an address" in refused.stderr
    assert not list(tmp_path.iterdir())
