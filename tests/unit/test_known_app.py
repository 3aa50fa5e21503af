"""What Apache is told of the app may be kept from an earlier start: never what another code, setting or model said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apache import configure, known_app
from apache.known_app import Facts, Known
from app import config
from app.config import SecretStr, Settings
from app.web.ops import known_routes
from tests import fakes

# A time that a file's owner may give to any file.
SET_TIME = (1_700_000_000, 1_700_000_000)
VIEW = "policy = 'shed'\n"


class Place:
    """Code, packages, models and state in folders of a test; ``facts`` counts how often the application is built."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.asked = path, 0
        self.view = path / "app" / "view.py"
        self.package = path / "packages" / "werkzeug" / "routing.py"
        self.manifest = path / "models" / "seen" / "1" / "manifest.toml"
        for file in (self.view, self.package, self.manifest, path / "cask" / "model.py", path / "flask.wsgi"):
            file.parent.mkdir(parents=True, exist_ok=True)
            self.write(file, VIEW)
        (path / "apache").mkdir()
        (path / "packages" / "flask").mkdir()
        self.settings = fakes.make_settings(path / "state", path / "models")
        monkeypatch.setattr(known_app, "ROOT", path)
        monkeypatch.setattr(known_app, "ask", self._ask)
        monkeypatch.setattr(known_app.sysconfig, "get_path", lambda key: str(path / "packages"))

    @property
    def kept(self) -> Path:
        return self.settings.state_dir / known_app.FILE

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        os.utime(path, SET_TIME)

    def change(self, **changes: Any) -> None:
        self.settings = self.settings.model_copy(update=changes)

    def start(self) -> Known:
        """As a start of the service does it."""
        known = known_app.of(self.settings, 1)
        known_app.keep(self.settings, known)
        return known

    def _ask(self, settings: Settings, seconds: int) -> Known:
        self.asked += 1
        says = self.view.read_text() if self.view.is_file() else ""
        return Known(Facts(says, [["/", ["GET"]]], {"X-Frame-Options": "DENY"}, "no-cache", {"status": 503}), [])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_the_second_start_builds_no_application_and_says_the_same(place: Place) -> None:
    first, second = place.start(), place.start()

    assert place.asked == 1
    assert second == first._replace(is_kept=True)


class Start:
    """What ``configure.prepare`` does of a start, without Apache; ``tested`` counts its tests of the configuration."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.tested, self.fault = place, 0, ""
        monkeypatch.setattr(configure, "rendering", lambda *_: contextlib.nullcontext())
        monkeypatch.setattr(configure, "test_configuration", self._test)
        for name in ("look_at_state", "write_ours", "announce_sizes"):
            monkeypatch.setattr(configure, name, lambda *_: None)

    def run(self) -> None:
        configure.prepare(self.place.settings)

    def _test(self, server_root: Path) -> None:
        self.tested += 1
        if self.fault:
            raise OSError(self.fault)


@pytest.fixture
def start(place: Place, monkeypatch: pytest.MonkeyPatch) -> Start:
    return Start(place, monkeypatch)


def test_what_apache_took_is_not_tested_again_until_something_changed(start: Start) -> None:
    start.run()
    start.run()
    assert start.tested == 1

    start.place.change(request_max_bytes=4711)
    start.run()
    assert start.tested == 2


def test_what_apache_refused_is_asked_and_tested_again(start: Start) -> None:
    start.fault = "Apache refuses the configuration"
    for _ in range(2):
        with pytest.raises(OSError, match="refuses"):
            start.run()

    assert start.tested == start.place.asked == 2
    assert not start.place.kept.exists()


def test_another_module_of_ours_is_tested(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    module = start.place.path / "modules" / "mod_arrivals.so"
    module.parent.mkdir()
    module.write_bytes(b"one")
    monkeypatch.setattr(known_app, "MODULES", module.parent)
    start.run()
    module.write_bytes(b"another")
    start.run()

    assert start.tested == 2


def test_a_certificate_is_tested_at_each_start(start: Start) -> None:
    start.place.change(https_port=8443)
    start.run()
    start.run()

    assert start.tested == 2
    assert start.place.asked == 1


def test_where_the_service_is_and_listens_makes_no_difference(place: Place, tmp_path: Path) -> None:
    place.start()
    shutil.copytree(place.settings.state_dir, tmp_path / "other")
    place.change(
        state_dir=tmp_path / "other", engine_socket=tmp_path / "other" / "s", port=81, loadtest_host="http://b"
    )

    place.start()

    assert place.asked == 1


def _commit(place: Place, text: str) -> None:
    place.view.write_text(text)
    git = ["git", "-C", str(place.path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for arguments in (["init", "-q"], ["add", "app"], ["commit", "-qm", "Change"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)


def _check_out_another(place: Place) -> None:
    """Another commit within the same second, its file as large."""
    subprocess.run(["git", "-C", str(place.path), "checkout", "-qf", "HEAD~1"], check=True, capture_output=True)
    os.utime(place.view, SET_TIME)


CHANGES: dict[str, Callable[[Place], Any]] = {
    "a view of equal size and time": lambda place: place.write(place.view, VIEW.replace("shed", "free")),
    "another commit": _check_out_another,
    "a new file": lambda place: place.write(place.path / "cask" / "new.py", ""),
    "a file that is gone": lambda place: (place.path / "cask" / "model.py").unlink(),
    "a file by another name": lambda place: place.view.rename(place.view.with_name("views.py")),
    "a file behind a link": lambda place: place.write(place.path / "elsewhere" / "linked.py", "VALUE = 2\n"),
    "the entry": lambda place: place.write(place.path / "flask.wsgi", VIEW.upper()),
    "another release of a package": lambda place: (place.path / "packages" / "flask-4.dist-info").mkdir(),
    "a package changed in place": lambda place: place.write(place.package, VIEW.upper()),
    "a setting": lambda place: place.change(request_max_wait_seconds=3.5),
    "a secret that was not set": lambda place: place.change(redis_url=SecretStr("redis://localhost")),
    "a manifest of equal size and time": lambda place: place.write(place.manifest, VIEW.upper()),
    "roles": lambda place: (place.settings.state_dir / "roles.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_asked_anew(place: Place, change: str) -> None:
    if change == "another commit":
        _commit(place, VIEW.replace("shed", "free"))
        _commit(place, VIEW)
        place.write(place.view, VIEW)
    if change == "a file behind a link":
        (place.path / "elsewhere").mkdir()
        place.write(place.path / "elsewhere" / "linked.py", "VALUE = 1\n")
        (place.path / "app" / "linked").symlink_to(place.path / "elsewhere")
    place.start()
    CHANGES[change](place)

    found = place.start()

    assert place.asked == 2
    assert found.facts.predicting == (place.view.read_text() if place.view.exists() else "")
    place.start()
    assert place.asked == 2


def test_another_python_asks_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.start()
    monkeypatch.setattr(sys, "version", "3.99")
    place.start()

    assert place.asked == 2


def test_a_check_asks_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.start()
    monkeypatch.setattr(config, "is_check", lambda: True)
    place.start()

    assert place.asked == 2


def _other_facts(place: Place) -> None:
    kept = json.loads(place.kept.read_text())
    kept["facts"]["predicting"] = ""
    place.kept.write_text(json.dumps(kept))


def _of_somebody_else(place: Place) -> None:
    if os.geteuid() == 0:
        os.chown(place.kept, 33, 33)
    else:
        pytest.skip("only root can give a file away")


def _unlink_and(make: Callable[[Path], Any]) -> Callable[[Place], Any]:
    def replace(place: Place) -> None:
        place.kept.unlink()
        make(place.kept)

    return replace


DAMAGES: dict[str, Callable[[Place], Any]] = {
    "cut off": lambda place: place.kept.write_text(place.kept.read_text()[:-20]),
    "empty": lambda place: place.kept.write_text(""),
    "other words": _other_facts,
    "no table": lambda place: place.kept.write_text("[]"),
    "less than is needed": lambda place: place.kept.write_text(
        json.dumps({**json.loads(place.kept.read_text()), "facts": {"predicting": ""}})
    ),
    "no text": lambda place: place.kept.write_bytes(b"\xff\xfe"),
    "larger than it may be": lambda place: place.kept.write_text(place.kept.read_text() + " " * known_app.MOST_BYTES),
    "a FIFO": _unlink_and(os.mkfifo),
    "a folder": _unlink_and(os.mkdir),
    "a link to nowhere": _unlink_and(lambda path: path.symlink_to("nowhere")),
    "of somebody else": _of_somebody_else,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_as_it_should_be_is_not_believed(place: Place, damage: str) -> None:
    first = place.start()
    DAMAGES[damage](place)

    assert place.start() == first
    assert place.asked == 2


def test_with_a_plugin_nothing_is_kept_and_nothing_believed(place: Place) -> None:
    place.start()
    plugin = place.settings.plugins_dir / "claims" / "plugin.toml"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("")
    place.start()
    place.kept.unlink()
    place.start()

    assert place.asked == 3
    assert not place.kept.exists()


@pytest.mark.parametrize("kind", ["a circle of links", "a link to nowhere in a package", "too many files"])
def test_what_cannot_be_looked_at_is_asked_anew_each_time(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "a circle of links":
        (place.path / "models" / "again").symlink_to(place.path / "models")
    elif kind == "too many files":
        monkeypatch.setattr(known_app, "MOST_FILES", 0)
    else:
        (place.path / "packages" / "flask").rmdir()
    place.start()
    place.start()

    assert place.asked == 2
    assert not place.kept.exists()


def test_code_that_changes_while_it_is_asked_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(settings: Settings, seconds: int) -> Known:
        known = place._ask(settings, seconds)
        place.write(place.view, VIEW.replace("shed", "free"))
        return known

    monkeypatch.setattr(known_app, "ask", ask)
    place.start()

    assert not place.kept.exists()


def test_a_folder_that_cannot_be_written_is_no_failure(place: Place) -> None:
    place.settings.state_dir.mkdir(parents=True)
    (place.settings.state_dir / "cache").write_text("a file in its place")

    assert place.start() == place.start()
    assert place.asked == 2


def test_what_the_real_application_says_comes_back_as_it_was(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    settings = fakes.make_settings(tmp_path / "state", tmp_path / "models")
    settings.state_dir.mkdir()

    asked = known_app.of(settings, 1)
    known_app.keep(settings, asked)
    kept = known_app.of(settings, 1)

    assert (settings.state_dir / known_app.FILE).exists()
    assert kept.facts == asked.facts
    assert "/v1/detect" in kept.facts.predicting.split("|")
    assert kept.facts.refusal["code"] == "engine_busy"


def test_configuration_is_written_without_flask_pydantic_and_numpy() -> None:
    heavy = {"flask", "werkzeug", "pydantic", "numpy", "PIL", "app.factory", "app.tasks"}
    code = f"import sys; sys.path.insert(0, 'apache'); import configure; print(sorted({heavy} & set(sys.modules)));"
    code += "print(configure.KNOWN_ROUTES)"

    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["[]", known_routes.FILE_NAME]
