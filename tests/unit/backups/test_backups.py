"""A backup holds what only this machine has, comes back as it was, and is refused where one byte of it is not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app import config
from app.auth.tokens import TokenStore
from app.backups import archive, contents, encryption, facts, restoring, upgrades
from app.backups.contents import PARTS
from app.config import Settings
from app.errors import BackupError, StateUnusableError
from app.host import running
from app.jobs import disk_store
from app.storage import state_schema
from app.storage.sqlite import Database
from tests.fakes import eventually


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
        archive.write(target, entries, facts.about(settings, parts, entries))
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
    file = place / "state/run/httpd/httpd.pid"
    with subprocess.Popen(["bash", "-c", "exec -a /usr/sbin/apache2 sleep 60"]) as server:
        file.write_text(str(server.pid))
        eventually(lambda: running.server_pid(settings.state_dir) == server.pid)
        with pytest.raises(BackupError, match="The service runs"):
            restoring.restore(settings, io.BytesIO(data), PARTS)
        server.kill()

    # Left behind by a container or a machine that ended: another program has the number now.
    file.write_text(str(os.getpid()))
    restoring.restore(settings, io.BytesIO(data), PARTS)


def test_unfinished_archive_never_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), archive.publishing(tmp_path / "a.tar") as target:
        target.write(b"half")
        raise RuntimeError

    assert not list(tmp_path.iterdir())


PASSPHRASE = "correct horse battery"  # noqa: S105 - made up


def test_encrypted_backup_opens_with_its_passphrase_only(settings: Settings, place: Path) -> None:
    file = place / "cask.tar.enc"
    with (
        contents.collected(settings, PARTS) as entries,
        archive.publishing(file) as target,
        encryption.encrypting(target, PASSPHRASE) as clear,
    ):
        archive.write(clear, entries, facts.about(settings, PARTS, entries))
    (place / "state/roles.json").write_text("{changed")

    assert b"camera" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    with file.open("rb") as source:
        assert encryption.is_encrypted(source)
        with (
            pytest.raises(BackupError, match="The passphrase does not open"),
            encryption.decrypting(source, "another one, wrong") as opened,
        ):
            restoring.restore(settings, opened, PARTS)
    assert (place / "state/roles.json").read_text() == "{changed"
    with file.open("rb") as source, encryption.decrypting(source, PASSPHRASE) as opened:
        restoring.restore(settings, opened, PARTS)
    assert (place / "state/roles.json").read_text() == "{}"


def test_reason_to_leave_openssl_is_told_though_its_input_cannot_be_closed() -> None:
    with pytest.raises(KeyError), encryption._openssl("-d", PASSPHRASE, subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"not sent yet")
        process.kill()
        process.wait()
        raise KeyError


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_changed_byte_of_an_encrypted_backup_is_found(settings: Settings, place: Path, at: float) -> None:
    file = place / "cask.tar.enc"
    with archive.publishing(file) as target, encryption.encrypting(target, PASSPHRASE) as clear:
        clear.write(backed_up(settings))
    data = bytearray(file.read_bytes())
    data[int(len(data) * at)] ^= 1

    with (
        pytest.raises(BackupError),
        encryption.decrypting(io.BufferedReader(io.BytesIO(bytes(data))), PASSPHRASE) as opened,  # type: ignore[arg-type]
    ):
        restoring.restore(settings, opened, PARTS)


def test_passphrase_is_long_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    file.chmod(0o644)
    with pytest.raises(BackupError, match="can be read by others"):
        encryption.read_passphrase(file)
    file.chmod(0o600)
    assert encryption.read_passphrase(file) == PASSPHRASE
    file.write_text("short")
    with pytest.raises(BackupError, match="has 5 characters"):
        encryption.read_passphrase(file)


def change_tokens(place: Path) -> None:
    database = Database(place / "state/tokens.sqlite3", contents.DATABASES[facts.TOKENS])
    with database.transaction() as connection:
        connection.execute("UPDATE tokens SET scopes = 'admin'")
    database.close()


def add_token(place: Path) -> None:
    store = TokenStore(place / "state")
    store.create("planted")


@pytest.mark.parametrize(("plant", "words"), [(change_tokens, "other tokens"), (add_token, "2 tokens")])
def test_planted_rows_are_found_also_where_the_sums_were_mended(
    settings: Settings, place: Path, plant: Callable[[Path], None], words: str
) -> None:
    with contents.collected(settings, PARTS) as entries:
        said = facts.about(settings, PARTS, entries)
    assert facts.compare(said, place / "state")["tokens"] == 1

    plant(place)

    with pytest.raises(BackupError, match=words):
        facts.compare(said, place / "state")


# Upgrades


def test_state_is_saved_once_before_another_release_uses_it(
    settings: Settings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrades.prepare(settings)
    upgrades.prepare(settings)

    (saved,) = state_schema.backups(place / "state")
    assert saved.name.startswith("schema-0-release-unknown-")
    assert saved.stat().st_mode & 0o077 == 0
    assert state_schema.found(place / "state") == {"schema": state_schema.SCHEMA, "release": upgrades.release()}
    assert "state/tokens.sqlite3" in names(saved.read_bytes())
    assert not [name for name in names(saved.read_bytes()) if "built" in name or "backups" in name]
    for number in range(7):
        monkeypatch.setattr(upgrades, "release", lambda number=number: f"0.2.{number}")
        upgrades.prepare(settings)
    kept = state_schema.backups(place / "state")
    assert len(kept) == upgrades.KEPT == 5
    assert "release-0.2.5-" in kept[0].name


def test_a_new_folder_needs_no_saving(tmp_path: Path) -> None:
    fresh = config.resolve({"ENV": "test", "STATE_DIR": str(tmp_path / "new")})

    upgrades.prepare(fresh)

    assert state_schema.backups(tmp_path / "new") == []
    assert state_schema.found(tmp_path / "new")["schema"] == state_schema.SCHEMA


def test_an_older_release_refuses_with_both_numbers_and_the_backup(settings: Settings, place: Path) -> None:
    upgrades.prepare(settings)
    (saved,) = state_schema.backups(place / "state")
    newer = {"schema": state_schema.SCHEMA + 1, "release": "9.1.0"}
    (place / "state" / state_schema.FILE).write_text(json.dumps(newer))
    before = sorted(path.name for path in (place / "state").iterdir())

    with pytest.raises(StateUnusableError) as caught:
        upgrades.prepare(settings)

    assert f"has schema {state_schema.SCHEMA + 1}, written by release 9.1.0" in caught.value.message
    assert f"this release knows {state_schema.SCHEMA}" in caught.value.message
    assert f"make restore FILE={saved} OPTIONS='--only state --yes'" in caught.value.hint
    assert sorted(path.name for path in (place / "state").iterdir()) == before


def test_a_backup_of_a_newer_release_is_not_restored(settings: Settings, place: Path) -> None:
    upgrades.prepare(settings)
    (place / "state" / state_schema.FILE).write_text(json.dumps({"schema": 99, "release": "9.1.0"}))
    data = backed_up(settings)
    upgrades_done = (place / "state" / state_schema.FILE).read_text()

    with pytest.raises(StateUnusableError, match="has schema 99"):
        restoring.restore(settings, io.BytesIO(data), PARTS)

    assert (place / "state" / state_schema.FILE).read_text() == upgrades_done


def test_a_full_disk_does_not_stop_a_release_with_the_same_schema(
    settings: Settings, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upgrades.prepare(settings)
    monkeypatch.setattr(upgrades, "ROOM_BYTES", 10**18)
    monkeypatch.setattr(upgrades, "release", lambda: "90.0.0")

    upgrades.prepare(settings)

    assert "was not saved before this release uses it" in caplog.text
    monkeypatch.setattr(upgrades, "release", lambda: "91.0.0")
    monkeypatch.setattr(state_schema, "SCHEMA", 2)
    with pytest.raises(StateUnusableError, match="could not be saved before"):
        upgrades.prepare(settings)
    assert state_schema.found(place / "state") == {"schema": 1, "release": "90.0.0"}


def test_no_table_changes_without_another_schema() -> None:
    forms = {path.name: len(migrations) for path, migrations in contents.DATABASES.items()}

    assert forms == state_schema.FORMS, "count SCHEMA up, and write the forms anew"
    assert len(upgrades.MIGRATIONS) == state_schema.SCHEMA
