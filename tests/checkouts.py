"""A repository that holds env files and nothing else, for tests of settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config
from app.errors import SettingsError


class Checkout:
    """A repository and a secrets directory of its own, so that no test sees the real ones."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.root / "env").mkdir(parents=True)
        (self.root / "docs").mkdir()
        for env in config.ENVIRONMENTS:
            self.write(f"env/{env}.env", f"ENV={env}\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path

    def load(self, **environ: str) -> config.Settings:
        return config.load(environ, self.root, self.secrets)

    def refusal(self, **environ: str) -> str:
        with pytest.raises(SettingsError) as caught:
            self.load(**environ)
        message = caught.value.message
        assert "\n" not in message
        return message
