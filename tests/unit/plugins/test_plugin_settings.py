"""Settings of plugins: from the same places as ours, typed, and a typo stops the start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app import config
from app.config import plugin_settings
from app.config.sources import Sources
from app.errors import SettingsError

TABLE = """
name = "claims"
version = "1"
cask = ">=1"
[settings.rows]
type = "int"
default = 3
at_least = 1
at_most = 20
unit = "rows"
meaning = "How many rows are answered."
[settings.kinds]
type = "list"
default = ["car"]
choices = ["car", "house"]
meaning = "What may be claimed."
[settings.is_strict]
type = "bool"
meaning = "Whether unclear photographs are refused."
[settings.api_key]
type = "text"
secret = true
meaning = "The key of the archive."
"""


@pytest.fixture
def place(tmp_path: Path) -> Sources:
    """A repository with one plugin, and nobody's environment."""
    shutil.copytree(config.ROOT / "env", tmp_path / "env", ignore=shutil.ignore_patterns("local.env"))
    (tmp_path / "plugins" / "claims").mkdir(parents=True)
    (tmp_path / "plugins" / "claims" / "plugin.toml").write_text(TABLE)
    (tmp_path / "secrets").mkdir()
    return Sources({"ENV": "test"}, tmp_path, tmp_path / "secrets")


def values(place: Sources) -> dict[str, object]:
    settings = config.load(*place)
    return plugin_settings.values(settings, tuple(plugin_settings.every(settings)[0]))


def test_defaults_hold_where_nothing_is_set(place: Sources) -> None:
    assert values(place) == {"rows": 3, "kinds": ("car",), "is_strict": False, "api_key": ""}


def test_each_place_is_read_in_the_order_of_ours(place: Sources) -> None:
    (place.root / "env" / "local.env").write_text("PLUGIN_CLAIMS_ROWS=5\nPLUGIN_CLAIMS_IS_STRICT=true\n")
    (place.secrets_directory / "plugin_claims_api_key").write_text("k3y\n")
    place = place._replace(environ={"ENV": "test", "PLUGIN_CLAIMS_ROWS": "7", "PLUGIN_CLAIMS_KINDS": "house,car"})

    assert values(place) == {"rows": 7, "kinds": ("house", "car"), "is_strict": True, "api_key": "k3y"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PLUGIN_CLAIMS_ROW", "5", "PLUGIN_CLAIMS_ROW is '5' (from the environment), but no plugin in"),
        ("PLUGIN_CLAIMS_ROW", "5", "Did you mean 'PLUGIN_CLAIMS_ROWS'?"),
        ("PLUGIN_CLAIM_ROWS", "5", "Did you mean 'PLUGIN_CLAIMS_ROWS'?"),
        ("PLUGIN_CLAIMS_ROWS", "many", "is 'many' (from the environment); expected a whole number of at least 1 of at"),
        ("PLUGIN_CLAIMS_ROWS", "21", "expected a whole number of at least 1 of at most 20"),
        ("PLUGIN_CLAIMS_KINDS", "car,boat", "expected one of car, house"),
        ("PLUGIN_CLAIMS_IS_STRICT", "1", "expected true or false"),
        ("PLUGIN_DIR", "x", "PLUGIN_DIR is 'x'"),
        ("PLUGINS_DIRR", "x", "Did you mean 'PLUGINS_DIR'?"),
    ],
)
def test_typo_and_wrong_value_stop_the_start(place: Sources, name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        config.load({"ENV": "test", name: value}, *place[1:])

    assert words in error.value.message


def test_line_of_an_env_file_is_named(place: Sources) -> None:
    (place.root / "env" / "local.env").write_text("PORT=8001\nPLUGIN_CLAIMS_ROWZ=5\n")

    with pytest.raises(SettingsError, match=r"from env/local.env:2\), but no plugin"):
        config.load(*place)


def test_secret_is_not_printed(place: Sources) -> None:
    with pytest.raises(SettingsError) as error:
        config.load({"ENV": "test", "PLUGIN_CLAIMS_API_KEYS": "s3cr3t"}, *place[1:])

    assert "s3cr3t" not in error.value.message


def test_broken_plugin_does_not_make_its_settings_wrong(place: Sources) -> None:
    """Mounting says what is wrong with it; with PLUGINS_ON_ERROR=skip the service starts."""
    (place.root / "plugins" / "claims" / "plugin.toml").write_text("name = \n")

    assert config.load({"ENV": "test", "PLUGIN_CLAIMS_ROWS": "5"}, *place[1:]).env == "test"
