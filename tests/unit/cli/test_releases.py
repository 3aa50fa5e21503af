"""What differs from another release's settings: in a git revision, a bundle; new, gone, changed, renamed."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from app.cli import releases
from app.cli.releases import Change
from app.errors import SettingsError

OLD = "# words\nENV=prod\nWEB_THREADS=4\nOLD_CACHE_SECONDS=60\nPORT=8000\n"
NEW = "# other words\nENV=prod\nCACHE_SECONDS=60\nWEB_THREADS=8\nPORT=8000\n"
CHANGES = [
    Change("new", "CACHE_SECONDS", "", "60"),
    Change("changed", "WEB_THREADS", "4", "8"),
    Change("gone", "OLD_CACHE_SECONDS", "60", ""),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose first commit has the old file."""
    folder = tmp_path / "repository"
    (folder / "env").mkdir(parents=True)
    (folder / "env" / "prod.env").write_text(OLD)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "old"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True, timeout=60)
    (folder / "env" / "prod.env").write_text(NEW)
    return folder


def bundle(path: Path, name: str = "site/env/prod.env") -> Path:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(f"cask-1/{name}")
        member.size = len(OLD)
        tar.addfile(member, io.BytesIO(OLD.encode()))
    return path


def test_changes_since_a_git_revision_and_since_a_bundle(root: Path, tmp_path: Path) -> None:
    assert releases.changes(root, "v1", "prod") == CHANGES
    assert releases.changes(root, str(bundle(tmp_path / "old.tar")), "prod") == CHANGES


def test_new_name_of_a_setting_is_guessed() -> None:
    assert "CACHE_SECONDS" in releases.renamed("OLD_CACHE_SECONDS", CHANGES)
    assert releases.renamed("PORT", CHANGES) == ""


@pytest.mark.parametrize("release", ["nosuch", "--help", "-x"])
def test_what_is_no_release_is_refused(root: Path, release: str) -> None:
    with pytest.raises(SettingsError, match="is no git revision"):
        releases.changes(root, release, "prod")


def test_another_file_is_no_bundle(root: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for path in (tmp_path / "text", bundle(tmp_path / "other.tar", "image")):
        with pytest.raises(SettingsError, match="bundle"):
            releases.changes(root, str(path), "prod")
