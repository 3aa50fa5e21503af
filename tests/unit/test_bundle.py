"""A bundle with one changed byte, of another key or with odd names is refused before anything is touched."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT

BUNDLE = ROOT / "docker" / "bundle"
TRAILER = 4096
NAME = "cask-0.0.0-test"

pytestmark = pytest.mark.skipif(
    not shutil.which("ssh-keygen"), reason="left out: there is no ssh-keygen; to have it: make docker-engine"
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *map(str, command)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


def make_key(folder: Path, name: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, timeout=60)
    return folder / name


def make_folder(parent: Path) -> Path:
    folder = parent / NAME
    (folder / "site").mkdir(parents=True)
    (folder / "MANIFEST").write_text(f"version=0.0.0\nrevision=test\narchitecture={'x86_64'}\n")
    (folder / "image.tar.zst").write_bytes(bytes(range(256)) * 40)
    (folder / "site" / "a name with ü and blanks").write_text("text")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and the bundle that was signed with it."""
    folder = tmp_path_factory.mktemp("bundle")
    key = make_key(folder, "key")
    done = run(BUNDLE / "pack.sh", make_folder(folder), key, folder / "whole.tar")
    assert done.returncode == 0, done.stderr
    return folder


def install(bundle: Path, key: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(BUNDLE / "install.sh", bundle, "--key", f"{key}.pub", *options)


def assert_refused(bundle: Path, key: Path, said: str) -> None:
    """Neither verified nor installed; the reason is said, and the place where it would lie is not even made."""
    prefix = bundle.parent / "prefix"
    for options in (["--verify"], ["--prefix", str(prefix), "--yes"]):
        done = install(bundle, key, *options)
        assert done.returncode == 3, (done.stdout, done.stderr)
        assert said in done.stderr
        assert not prefix.exists()


def test_whole_bundle_is_verified_and_read_by_plain_tar(made: Path) -> None:
    done = install(made / "whole.tar", made / "key", "--verify")

    assert done.returncode == 0, done.stderr
    assert f"{NAME}: Cask 0.0.0, revision test" in done.stdout
    with tarfile.open(made / "whole.tar") as tar:
        assert f"{NAME}/SHA256SUMS" in tar.getnames()


def test_same_folder_gives_the_same_bytes_before_the_signature(made: Path) -> None:
    again = made / "again.tar"

    run(BUNDLE / "pack.sh", made / NAME, made / "key", again)

    assert again.read_bytes() == (made / "whole.tar").read_bytes()


PLACES: dict[str, Callable[[bytes], int]] = {
    "a name": lambda data: data.index(b"MANIFEST"),
    "a mode": lambda data: data.index(b"MANIFEST") + 60,
    "what a file holds": lambda data: data.index(b"version=0.0.0") + 8,
    "between a file and the next": lambda data: data.index(b"architecture=") + 100,
    "the end of the tar": lambda data: len(data) - TRAILER - 1,
    "the mark of the signature": lambda data: data.index(b"cask-bundle 1\n") + 3,
    "the signature": lambda data: data.index(b"BEGIN SSH SIGNATURE") + 60,
    "behind the signature": lambda data: data.index(b"END SSH SIGNATURE") + 30,
    "the last byte": lambda data: len(data) - 1,
}


@pytest.mark.parametrize("place", PLACES)
def test_one_changed_byte_is_refused(made: Path, tmp_path: Path, place: str) -> None:
    data = bytearray((made / "whole.tar").read_bytes())
    data[PLACES[place](bytes(data))] ^= 1
    bundle = tmp_path / "changed.tar"
    bundle.write_bytes(data)

    assert_refused(bundle, made / "key", "FAIL: needs")


@pytest.mark.parametrize("size", [0, 100, 4096, 20_000, -1, -4096])
def test_bundle_that_was_cut_off_is_refused(made: Path, tmp_path: Path, size: int) -> None:
    bundle = tmp_path / "cut.tar"
    bundle.write_bytes((made / "whole.tar").read_bytes()[:size])

    assert_refused(bundle, made / "key", "cut off")


def test_bundle_of_another_key_is_refused_and_unsigned_says_so(made: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "whole.tar"
    shutil.copy(made / "whole.tar", bundle)

    assert_refused(bundle, make_key(tmp_path, "other"), "signed with another key")
    done = run(BUNDLE / "install.sh", bundle, "--verify", "--unsigned")
    assert (done.returncode, "by whom is not known" in done.stdout) == (0, True)


def test_first_install_wants_the_key(made: Path, tmp_path: Path) -> None:
    done = run(BUNDLE / "install.sh", made / "whole.tar", "--prefix", tmp_path / "prefix")

    assert done.returncode == 2
    assert "needs the public key" in done.stderr


def sign(path: Path, key: Path) -> None:
    """As pack.sh does, for a tar that it would never make."""
    script = BUNDLE / "pack.sh"
    lines = script.read_text().split('rm -f "$file"')[1].split("\n")
    begin = next(i for i, line in enumerate(lines) if line.startswith("ssh-keygen"))
    head = f'set -eu -o pipefail\nTRAILER_BYTES={TRAILER} key="{key}" file="{path}"\nfail() {{ exit 9; }}\n'
    subprocess.run(["bash", "-c", head + "\n".join(lines[begin:])], check=True, timeout=60)


def odd(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


ODD = {
    "a symbolic link": odd(f"{NAME}/link", tarfile.SYMTYPE, "/etc"),
    "a hard link": odd(f"{NAME}/link", tarfile.LNKTYPE, f"{NAME}/MANIFEST"),
    "a device": odd(f"{NAME}/null", tarfile.CHRTYPE),
    "a pipe": odd(f"{NAME}/pipe", tarfile.FIFOTYPE),
    "a way up": odd(f"{NAME}/../../etc/cron.d/x"),
    "an absolute name": odd("/etc/cron.d/x"),
    "another folder": odd("cask-other/x"),
    "a name twice": odd(f"{NAME}/MANIFEST"),
    "a newline": odd(f"{NAME}/x\n/etc/passwd"),
}


@pytest.mark.parametrize("kind", ODD)
def test_signed_tar_with_odd_members_is_refused(made: Path, tmp_path: Path, kind: str) -> None:
    bundle = tmp_path / "odd.tar"
    with tarfile.open(bundle, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(made / NAME, NAME)
        tar.addfile(ODD[kind], io.BytesIO())
    sign(bundle, made / "key")

    done = install(bundle, made / "key", "--verify")

    assert done.returncode == 3, (done.stdout, done.stderr)


def test_links_are_not_packed(made: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "link").symlink_to("/etc/passwd")

    done = run(BUNDLE / "pack.sh", folder, made / "key", tmp_path / "out.tar")

    assert done.returncode == 2
    assert "files and folders only" in done.stderr


def test_a_setting_takes_the_place_of_the_older_one_in_a_file_of_windows(tmp_path: Path) -> None:
    """Else it would stand there twice, and the start be refused."""
    (tmp_path / "local.env").write_bytes(b"\xef\xbb\xbfPORT=8001\r\nCACHE=off")
    # The function as it stands there: installing needs an engine.
    taken = f"eval \"$(sed -n '/^put() {{/,/^}}/p' '{BUNDLE / 'install.sh'}')\""

    done = run("-c", f"set -euo pipefail; PREFIX='{tmp_path}'; {taken}; put PORT 8000; put NEW 1")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "local.env").read_bytes() == b"CACHE=off\nPORT=8000\nNEW=1\n"


@pytest.mark.parametrize(
    ("step", "given", "told"),
    [
        ("backup", ["FILE=a b.tar"], ["create", "{here}/a b.tar"]),
        ("backup-check", ["FILE=/x/a.tar"], ["check", "/x/a.tar"]),
        (
            "restore",
            ["FILE=a.tar", "OPTIONS=--yes --only state"],
            ["restore", "{here}/a.tar", "--yes", "--only", "state"],
        ),
        ("support-bundle", ["FILE=s.tar.gz"], ["{here}/s.tar.gz"]),
        ("status", ["OPTIONS=--json"], ["--json"]),
        ("up", [], []),
    ],
)
def test_a_site_gives_steps_what_make_would(tmp_path: Path, step: str, given: list[str], told: list[str]) -> None:
    """Files lie below the folder of the command, not below a release that the next upgrade removes."""
    tree = tmp_path / "releases" / "cask-1"
    steps, here = tree / "docker" / "steps", tmp_path / "here"
    for folder in (steps, tree / "app", tree / "docker" / "bundle", here):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(BUNDLE / "cask", tree / "docker" / "bundle")
    shutil.copy(ROOT / "app" / "given.sh", tree / "app")
    for path in (ROOT / "docker" / "steps").glob("*.sh"):
        (steps / path.name).write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
        (steps / path.name).chmod(0o755)
    (tree / "MANIFEST").write_text("image=cask:1\n")
    (tmp_path / "site.conf").write_text("ENV=prod\nCOMPOSE_PROJECT_NAME=cask\n")

    done = subprocess.run(
        [tree / "docker" / "bundle" / "cask", step, *given], cwd=here, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == [each.format(here=here) for each in told] or not told, done.stderr
    assert done.returncode == 0, done.stderr
