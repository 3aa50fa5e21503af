"""A backup holds what only this machine has, comes back as it was, and is refused where one byte of it is not."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app import config
from app.auth.tokens import TokenStore
from app.backups import archive, contents, restoring, trial
from app.backups.contents import PARTS
from app.config import Settings
from app.errors import BackupError
from app.jobs import disk_store
from app.storage.sqlite import Database


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with something of each part."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    for name, text in {
        "env/local.env": "PORT=8123\n",
        "env/prod.env": "PORT=1\n",
        "secrets/secret_key": "a" * 32,
        "models/cones/1/manifest.toml": "name = 'cones'",
        "models/cones/1/environment/bin/python": "left out",
        "plugins/claims/plugin.toml": "name = 'claims'",
        "state/roles.json": "{}",
        "state/built/0123/model.bin": "built",
        "state/run/engine.sock": "left out",
        "state/cache/answers.sqlite3": "left out",
        "state/limits.sqlite3-wal": "left out",
        "state/jobs/images/9f2c": "picture",
        "state/jobs/incoming/1": "left out",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "plugins/claims/link").symlink_to("/etc/passwd")
    TokenStore(tmp_path / "state").create("camera")
    with Database(tmp_path / "state" / contents.JOBS, disk_store.MIGRATIONS).transaction():
        pass
    return tmp_path


@pytest.fixture
def settings(place: Path) -> Settings:
    folders = {name: str(place / folder) for name, folder in (("STATE_DIR", "state"), ("MODELS_DIR", "models"))}
    return config.resolve({"ENV": "test", **folders, "PLUGINS_DIR": str(place / "plugins")})


def backed_up(settings: Settings, parts: tuple[str, ...] = PARTS) -> bytes:
    target = io.BytesIO()
    with contents.collected(settings, parts) as entries:
        archive.write(target, entries, {"parts": list(parts), **trial.counts(settings.state_dir)})
    return target.getvalue()


def names(data: bytes) -> list[str]:
    return tarfile.open(fileobj=io.BytesIO(data)).getnames()


def test_it_holds_what_only_this_machine_has(settings: Settings, place: Path) -> None:
    assert names(backed_up(settings)) == [
        "backup.json",
        "models/cones/1/manifest.toml",
        "plugins/claims/plugin.toml",
        "secrets/secret_key",
        "settings/local.env",
        "state/built/0123/model.bin",
        "state/jobs/images/9f2c",
        "state/jobs/jobs.sqlite3",
        "state/roles.json",
        "state/tokens.sqlite3",
        "SHA256SUMS",
    ]
    assert not list(place.glob("state/.backup-*"))
    assert names(backed_up(settings, ("secrets",))) == ["backup.json", "secrets/secret_key", "SHA256SUMS"]


def test_it_comes_back_as_it_was_and_what_was_there_is_kept(settings: Settings, place: Path) -> None:
    data = backed_up(settings)
    TokenStore(place / "state").create("later")
    (place / "state/roles.json").write_text("{changed")
    (place / "state/newer.json").write_text("newer")
    (place / "env/local.env").unlink()

    about, kept = restoring.restore(settings, io.BytesIO(data), PARTS)

    assert [token.name for token in TokenStore(place / "state").all()] == ["camera"]
    assert (place / "state/roles.json").read_text() == "{}"
    assert (place / "state/jobs/images/9f2c").read_text() == "picture"
    assert (place / "env/local.env").read_text() == "PORT=8123\n"
    assert (place / "env/prod.env").exists()
    assert (place / "secrets/secret_key").stat().st_mode & 0o077 == 0
    assert about["tokens"] == 1
    old = next(folder for folder in kept if folder.parent == place / "state")
    assert (old / "roles.json").read_text() == "{changed"
    assert (old / "newer.json").exists()
    assert not (place / "state/newer.json").exists()
    assert not list(place.rglob(".restoring"))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def changed(data: bytes) -> bytes:
    at = data.index(b"PORT=8123")
    return data[:at] + b"PORT=9999" + data[at + 9 :]


def renamed(data: bytes) -> bytes:
    return _with(data, lambda name: "state/../../../etc/cron.d/x" if name == "state/roles.json" else name)


def newer(data: bytes) -> bytes:
    return data.replace(b'"form": 1', b'"form": 9')


def _with(data: bytes, called: Callable[[str], str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=target, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            member.name = called(member.name)
            new.addfile(member, file)
    return target.getvalue()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "damaged or cut off"),
        (changed, "settings/local.env is not what was backed up"),
        (renamed, "is no name in a backup"),
        (newer, "has the form 9; this release knows 1"),
        (lambda data: b"", "damaged or cut off"),
        (lambda data: b"hello", "damaged or cut off"),
        (lambda data: _with(data, lambda name: "x" if name == "backup.json" else name), "This is no backup of Cask"),
    ],
    ids=["cut", "changed", "renamed", "newer", "empty", "text", "foreign"],
)
def test_what_is_not_whole_is_refused_and_changes_nothing(
    settings: Settings, place: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    data = spoil(backed_up(settings))
    (place / "state/roles.json").write_text("{as it is}")

    with pytest.raises(BackupError, match=said):
        restoring.restore(settings, io.BytesIO(data), PARTS)

    assert (place / "state/roles.json").read_text() == "{as it is}"
    assert not list(place.rglob(".restoring"))


def test_nothing_is_restored_below_a_running_service(settings: Settings, place: Path) -> None:
    data = backed_up(settings)
    (place / "state/run/httpd").mkdir()
    (place / "state/run/httpd/httpd.pid").write_text(str(os.getpid()))

    with pytest.raises(BackupError, match="The service runs"):
        restoring.restore(settings, io.BytesIO(data), PARTS)


def test_unfinished_archive_never_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), archive.publishing(tmp_path / "a.tar") as target:
        target.write(b"half")
        raise RuntimeError

    assert not list(tmp_path.iterdir())
