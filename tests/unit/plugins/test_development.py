"""`make dev`: a save of a plugin is answered at once, and one that breaks it costs nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ROOT
from tests import servers

PATIENCE_SECONDS = 60.0
MANIFEST = 'name = "words"\nversion = "1"\ncask = ">=1"\n'
CODE = (
    "from flask import Blueprint\nfrom cask import public\nblueprint = Blueprint('words', __name__)\n"
    "@blueprint.get('/word')\n@public\ndef word():\n    return '{word}'\n"
)


class Service:
    """`app.plugins.development` over one plugin, and a caller."""

    def __init__(self, place: Path) -> None:
        self.port, self.plugin, self._log = servers.free_port(), place / "plugins" / "words", place / "log"
        self._second, self._saves = int(time.time()) * 10**9, 0
        self.plugin.mkdir(parents=True)
        (self.plugin / "plugin.toml").write_text(MANIFEST)
        self.save("one")
        state = {"STATE_DIR": str(place / "state"), "PLUGINS_DIR": str(place / "plugins"), "JOBS": "off"}
        environ = {"PATH": os.environ["PATH"], "ENV": "dev", "PORT": str(self.port), "ENGINE_MODE": "service", **state}
        (place / "state").mkdir()
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.plugins.development"], cwd=ROOT, env=environ, stdout=log, stderr=log
            )

    def save(self, word: str, code: str = CODE) -> None:
        """All within one second, in which Python takes a compiled file of the same size for current; each in one step,
        or a busy machine would see two saves.
        """
        path, self._saves = self.plugin / ".saved", self._saves + 1
        path.write_text(code.replace("{word}", word))
        os.utime(path, ns=(self._second + self._saves, self._second + self._saves))
        path.replace(self.plugin / "__init__.py")

    def word(self) -> str:
        """What it answers now, or the status."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/word", timeout=PATIENCE_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return str(error.code)

    def told(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str, count: int = 1) -> None:
        servers.wait_until(lambda: self.told().count(words) >= count, PATIENCE_SECONDS, f"{words!r} {count} times")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.close()


def test_save_is_answered_at_once_and_a_broken_one_costs_nothing(service: Service) -> None:
    service.wait_for("ok    first start")
    assert service.word() == "one"
    serving = service.process.pid

    service.save("two")
    service.wait_for("ok    words/__init__.py: it answers")
    assert service.word() == "two"

    service.save("three", CODE + "oh no\n")
    service.wait_for("The last good one goes on answering.")
    assert "__init__.py, line 8" in service.told()
    assert service.word() == "two"

    (service.plugin / "plugin.toml").write_text(MANIFEST + "[settings.word]\ntype = 'text'\nmeaning = 'A word.'\n")
    service.save("four")
    service.wait_for("it answers", 3)
    assert service.word() == "four"

    # Neither Cask itself was imported again, nor did one of its processes seem to crash.
    assert (service.process.poll(), service.process.pid) == (None, serving)
    assert "first start" in service.told()
    assert "ended without logging why" not in service.told()
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(PATIENCE_SECONDS) == 0


def test_plugin_that_is_broken_from_the_start_is_named_and_heals(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.save("x", "oh no\n")
    with contextlib.closing(service):
        service.wait_for("it answers")
        healed = time.monotonic() + PATIENCE_SECONDS
        service.save("one")
        while service.word() != "one":
            assert time.monotonic() < healed, service.told()
            time.sleep(0.05)
