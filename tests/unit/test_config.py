"""Settings: which place wins, where a value came from, and the one line that each wrong value gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from app import config
from tests.certificates import Authority
from tests.checkouts import Checkout

REAL_SECRET = "q7Wm2xN9vRk4Ls8Tz1Bd"  # noqa: S105 - made up
OTHER_SECRET = "h5Jc3yP6uXf0Ga2Ee9Mn"  # noqa: S105 - made up
PLACES = ("environment", "named file", "secrets directory", "local file", "environment's file", "default")


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    # Not tmp_path: with the name of the test in it, the socket's path would be too long.
    with tempfile.TemporaryDirectory(prefix="cask-") as folder:
        yield Checkout(Path(folder))


# Which environment


@pytest.mark.parametrize(
    ("given", "env"),
    [("dev", "dev"), ("test", "test"), ("development", "dev"), ("", "dev"), ("staging", "staging"), ("prod", "prod")],
)
def test_env_picks_the_environment(checkout: Checkout, given: str, env: str) -> None:
    settings = checkout.load(ENV=given, SECRET_KEY=REAL_SECRET)

    assert settings.env == env
    assert settings.sources["env"] == ("environment" if given else "default")


def test_production_is_another_name_of_prod_and_picks_its_file(checkout: Checkout) -> None:
    checkout.write("env/prod.env", "ENV=prod\nPORT=8123\n")

    settings = checkout.load(ENV="production", SECRET_KEY=REAL_SECRET)

    assert (settings.env, settings.port) == ("prod", 8123)


def test_without_env_it_is_dev(checkout: Checkout) -> None:
    assert checkout.load().env == "dev"


def test_unknown_env_is_refused_with_the_nearest_name(checkout: Checkout) -> None:
    assert checkout.refusal(ENV="prdo") == (
        "ENV is 'prdo' (from the environment); expected one of dev, test, staging, prod. Did you mean 'prod'?"
    )


@pytest.mark.parametrize(("given", "meant"), [("PROD", "prod"), ("stage", "staging"), ("tests", "test")])
def test_near_misses_of_env_get_a_suggestion(checkout: Checkout, given: str, meant: str) -> None:
    assert checkout.refusal(ENV=given).endswith(f"Did you mean {meant!r}?")


def test_env_that_resembles_nothing_gets_no_suggestion(checkout: Checkout) -> None:
    assert checkout.refusal(ENV="xyz").endswith("staging, prod.")


# Which place wins


def set_port(checkout: Checkout, where: str, value: str) -> dict[str, str]:
    """Set PORT in one place; gives what to add to the environment."""
    if where == "local file":
        checkout.write("env/local.env", f"PORT={value}\n")
    if where == "environment's file":
        checkout.write("env/dev.env", f"ENV=dev\nPORT={value}\n")
    return {"PORT": value} if where == "environment" else {}


def set_secret(checkout: Checkout, where: str, value: str) -> dict[str, str]:
    """Set SECRET_KEY in one place; gives what to add to the environment."""
    if where == "environment":
        return {"SECRET_KEY": value}
    if where == "named file":
        return {"SECRET_KEY_FILE": str(checkout.write("key", f"{value}\n" if value else ""))}
    if where == "secrets directory":
        (checkout.secrets / "secret_key").write_text(f"{value}\n" if value else "")
    if where == "local file":
        checkout.write("env/local.env", f"SECRET_KEY={value}\n")
    if where == "environment's file":
        checkout.write("env/dev.env", f"SECRET_KEY={value}\n")
    return {}


def pairs(places: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(winner, loser) for at, winner in enumerate(places) for loser in places[at + 1 :]]


@pytest.mark.parametrize(("winner", "loser"), pairs(("environment", "local file", "environment's file", "default")))
@pytest.mark.parametrize("empty", [False, True])
def test_the_earlier_place_wins_and_empty_falls_through(
    checkout: Checkout, winner: str, loser: str, empty: bool
) -> None:
    environ = set_port(checkout, loser, "8002") | set_port(checkout, winner, "" if empty else "8001")

    port = checkout.load(**environ).port

    assert port == (8001 if not empty else 8000 if loser == "default" else 8002)


@pytest.mark.parametrize(("winner", "loser"), pairs(PLACES))
@pytest.mark.parametrize("empty", [False, True])
def test_the_earlier_place_wins_for_secrets_too(checkout: Checkout, winner: str, loser: str, empty: bool) -> None:
    environ = set_secret(checkout, loser, OTHER_SECRET) | set_secret(checkout, winner, "" if empty else REAL_SECRET)

    key = checkout.load(**environ).secret_key.get_secret_value()

    assert key == (REAL_SECRET if not empty else config.DEVELOPMENT_KEY if loser == "default" else OTHER_SECRET)


def test_another_environments_file_is_not_read(checkout: Checkout) -> None:
    checkout.write("env/test.env", "PORT=8002\n")

    assert checkout.load(ENV="dev").port == 8000


def test_load_reads_no_environment_but_the_one_it_is_given(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9999")
    monkeypatch.setenv("port", "9998")

    assert checkout.load().port == 8000


# Where a value came from


def test_sources_name_environment_file_and_line(checkout: Checkout) -> None:
    key = checkout.write("key", REAL_SECRET)
    checkout.write("env/local.env", "# mine\n\n\nLOG_LEVEL=error\n")
    checkout.write("env/dev.env", "\ufeff# a comment\nENV=dev\n\n# another\nWEB_THREADS=3\n\n\n\nWEB_PROCESSES=1\n")

    sources = checkout.load(PORT="8001", SECRET_KEY_FILE=str(key)).sources

    assert sources["port"] == "environment"
    assert sources["secret_key"] == f"file {key}"
    assert sources["log_level"] == "env/local.env:4"
    assert sources["web_threads"] == "env/dev.env:5"
    assert sources["web_processes"] == "env/dev.env:9"
    assert sources["engine_socket"] == "default"


def test_source_of_a_mounted_secret_is_its_path(checkout: Checkout) -> None:
    (checkout.secrets / "secret_key").write_text(REAL_SECRET)

    assert checkout.load().sources["secret_key"] == f"file {checkout.secrets / 'secret_key'}"


def test_windows_line_ends_are_no_part_of_a_value(checkout: Checkout) -> None:
    (checkout.root / "env/local.env").write_bytes(b"# mine\r\nPORT=8001\r\nLOG_LEVEL=error\r\n")

    settings = checkout.load()

    assert (settings.port, settings.log_level, settings.sources["log_level"]) == (8001, "error", "env/local.env:3")


# Values


def test_values_have_the_types_of_their_declarations(checkout: Checkout) -> None:
    settings = checkout.load(
        DEBUG="yes",
        IMAGES_FORMATS="png, jpeg,png",
        REQUEST_TIMEOUT_SECONDS="0.5",
        MODELS="a@1,b",
        TRUSTED_PROXIES="::1",
    )

    assert settings.debug is True
    assert settings.images_formats == ("png", "jpeg")
    assert settings.request_timeout_seconds == 0.5
    assert settings.models == ("a@1", "b")


def test_settings_are_frozen(checkout: Checkout) -> None:
    settings = checkout.load()

    with pytest.raises(AttributeError, match="frozen"):
        settings.port = 1


def test_paths_start_at_the_repository(checkout: Checkout) -> None:
    settings = checkout.load(STATE_DIR="state/../data", MODELS_DIR="/srv/models")

    assert settings.state_dir == checkout.root / "data"
    assert settings.models_dir == Path("/srv/models")
    assert settings.engine_socket == checkout.root / "data/run/engine.sock"


def test_socket_can_be_set_apart_from_the_state(checkout: Checkout) -> None:
    assert checkout.load(ENGINE_SOCKET="/run/engine.sock").engine_socket == Path("/run/engine.sock")


def test_load_test_aims_at_our_own_port_unless_told(checkout: Checkout) -> None:
    assert checkout.load(PORT="8042").loadtest_host == "http://127.0.0.1:8042"
    assert checkout.load(LOADTEST_HOST="https://box.example:8443/").loadtest_host == "https://box.example:8443"
    assert checkout.load(LOADTEST_HOST="https://box.example/cask/").loadtest_host == "https://box.example/cask"


def test_server_names_are_listed_once_with_the_main_one_first(checkout: Checkout) -> None:
    settings = checkout.load(SERVER_NAME="box.example", SERVER_ALIASES="box,box.example,10.0.0.7")

    assert settings.server_names == ("box.example", "box", "10.0.0.7")


def test_tls_is_enabled_by_its_port(checkout: Checkout) -> None:
    for name in ("cert.pem", "key.pem"):
        checkout.write(name, "")

    settings = checkout.load(HTTPS_PORT="8443", TLS_CERTIFICATE="cert.pem", TLS_KEY="key.pem")

    assert settings.tls_enabled
    assert settings.tls_key == checkout.root / "key.pem"
    assert not checkout.load().tls_enabled


def test_default_of_each_declaration_is_a_right_value(checkout: Checkout) -> None:
    for env in config.ENVIRONMENTS:
        checkout.load(ENV=env, SECRET_KEY=REAL_SECRET)


# Wrong values, one line each

WRONG_VALUES = [
    ("PORT", "80_00", "a whole number from 1 to 65535."),
    ("PORT", "80a", "a whole number from 1 to 65535."),
    ("PORT", "0", "a whole number from 1 to 65535."),
    ("PORT", "70000", "a whole number from 1 to 65535."),
    ("PORT", "80.5", "a whole number from 1 to 65535."),
    ("DEBUG", "ture", "true or false. Did you mean 'true'?"),
    ("LOG_LEVEL", "warn", "one of debug, info, warning, error. Did you mean 'warning'?"),
    ("LOG_LEVEL", "INFO", "one of debug, info, warning, error. Did you mean 'info'?"),
    ("LOG_FORMAT", "jsno", "one of text, json. Did you mean 'json'?"),
    ("ENGINE_MODE", "inprocess", "one of service, child, in_process. Did you mean 'in_process'?"),
    ("IMAGES_FORMATS", "jpeg,pgn", "some of jpeg, png, webp, bmp, gif, tiff, with commas between. Did you mean 'png'?"),
    ("LISTEN_HOST", "a b", "an address or a host name."),
    ("SERVER_NAME", "-box", "a host name."),
    ("SERVER_ALIASES", "box,*", "host names or addresses, with commas between."),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "addresses or networks such as 10.0.0.0/8, with commas between."),
    ("TRUSTED_PROXIES", "proxy", "addresses or networks such as 10.0.0.0/8, with commas between."),
    ("MODELS", "../etc", "name or name@version, with commas between."),
    ("ENGINE_MAX_BATCH_SIZE", "-1", "a whole number of images from 0 to 1024."),
    ("DEVICE", "gpu", "auto, cpu, cuda or cuda:0, cuda:1 and so on."),
    ("DEVICE", "cuda:", "auto, cpu, cuda or cuda:0, cuda:1 and so on."),
    ("ENGINE_DRAIN_SECONDS", "nan", "a number of seconds from 0 to 3600."),
    ("ENGINE_HANG_SECONDS", "inf", "a number of seconds from 1 to 3600."),
    ("HSTS_SECONDS", "-1", "a whole number of seconds of at least 0."),
    ("LOADTEST_ALLOW", "maybe", "one of yes, confirm, no."),
    ("LOADTEST_HOST", "127.0.0.1:80", "an address such as http://127.0.0.1:8000 or https://box.example/cask."),
    ("LOADTEST_HOST", "http://", "an address such as http://127.0.0.1:8000 or https://box.example/cask."),
    ("LOADTEST_HOST", "http://box/path?a", "an address such as http://127.0.0.1:8000 or https://box.example/cask."),
    ("LOADTEST_HOST", "http://box:99999", "an address such as http://127.0.0.1:8000 or https://box.example/cask."),
    ("LOADTEST_HOST", "http://me:pw@box", "an address such as http://127.0.0.1:8000 or https://box.example/cask."),
    ("CONTAINER_MEMORY", "2 GB", "a size such as 512m or 2g."),
    ("CONTAINER_CPUS", "all", "a number of cores from 0 to 4096."),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG_VALUES)
def test_wrong_value_is_refused_in_one_line(checkout: Checkout, name: str, value: str, expected: str) -> None:
    assert checkout.refusal(**{name: value}) == f"{name} is {value!r} (from the environment); expected {expected}"


def test_wrong_value_in_a_file_is_refused_with_its_line(checkout: Checkout) -> None:
    checkout.write("env/dev.env", "# why\nENV=dev\n\nPORT=x\n")

    assert checkout.refusal() == "PORT is 'x' (from env/dev.env:4); expected a whole number from 1 to 65535."


def test_value_with_line_ends_stays_one_line_and_short(checkout: Checkout) -> None:
    message = checkout.refusal(PORT="a\nb" + "c" * 500)

    assert r"'a\nbcc" in message
    assert len(message) < 200


SHORT_QUEUE = {"ENGINE_MAX_QUEUE_SIZE": "64"}
FITS_TOGETHER = [
    ({"REQUEST_TIMEOUT_SECONDS": "130"}, "expected at most REQUEST_MAX_TIMEOUT_SECONDS, which is 120."),
    ({"IMAGES_MAX_BYTES": "40000000"}, "expected at most REQUEST_MAX_BYTES, which is 33554432."),
    (
        {**SHORT_QUEUE, "ENGINE_MAX_BATCH_SIZE": "65"},
        "expected at most ENGINE_MAX_QUEUE_SIZE, which is 64.",
    ),
    (
        {**SHORT_QUEUE, "REQUEST_MAX_IMAGES": "65"},
        "expected at most ENGINE_MAX_QUEUE_SIZE, which is 64.",
    ),
    (
        {"SERVER_MAX_CONNECTIONS": "31", "WEB_PROCESSES": "2", "WEB_THREADS": "16"},
        "expected at least WEB_PROCESSES × WEB_THREADS, which is 32.",
    ),
    ({"HTTPS_PORT": "8443"}, "expected the path of a file, as HTTPS_PORT is 8443."),
    ({"TLS_KEY": "key.pem"}, "TLS_CERTIFICATE is not set; expected a path, as TLS_KEY is set: both or neither."),
    (
        {"TLS_CERTIFICATE": "cert.pem"},
        "TLS_KEY is not set; expected a path, as TLS_CERTIFICATE is set: both or neither.",
    ),
    (
        {"HTTPS_PORT": "8443", "TLS_KEY": "/x.key", "TLS_CERTIFICATE": "/x.pem"},
        "TLS_CERTIFICATE is '/x.pem' (from the environment); expected a file that exists, as HTTPS_PORT is 8443.",
    ),
    ({"ENV": "test", "RELOAD": "true"}, "expected false in test: code is loaded again in dev only."),
    ({"STATE_DIR": "/" + "d" * 100}, "expected a path of at most 99 bytes; this one has 117."),
    ({"ENGINE_SOCKET": "/" + "é" * 50}, "expected a path of at most 99 bytes; this one has 101."),
]


@pytest.mark.parametrize(("environ", "end"), FITS_TOGETHER)
def test_values_that_do_not_fit_together_are_refused(checkout: Checkout, environ: dict[str, str], end: str) -> None:
    assert checkout.refusal(**environ).endswith(end)


def test_both_ports_may_not_be_the_same(checkout: Checkout) -> None:
    for name in ("c", "k"):
        checkout.write(name, "")

    message = checkout.refusal(PORT="8443", HTTPS_PORT="8443", TLS_CERTIFICATE="c", TLS_KEY="k")

    assert message.startswith("HTTPS_PORT is '8443'")


def test_key_that_only_root_may_see_is_not_called_missing(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.write("cert.pem", "")

    look = Path.stat

    def forbidden(path: Path, **how: bool) -> os.stat_result:
        if path.name == "key.pem":
            raise PermissionError
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", forbidden)

    assert checkout.load(HTTPS_PORT="8443", TLS_CERTIFICATE="cert.pem", TLS_KEY="/root/key.pem").tls_enabled


@pytest.mark.parametrize("name", ["DEBUG", "RELOAD"])
@pytest.mark.parametrize("env", ["staging", "prod"])
def test_developers_aids_are_refused_where_strangers_call(checkout: Checkout, name: str, env: str) -> None:
    message = checkout.refusal(ENV=env, SECRET_KEY=REAL_SECRET, **{name: "1"})

    assert message.startswith(f"{name} is 'true' (from the environment); expected false in {env}: ")


# Unknown names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ENGINE_WORKER", "ENGINE_WORKERS"),
        ("IMAGES_MAX_PIXEL", "IMAGES_MAX_PIXELS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_SECONDS"),
        ("WEB_THREAD", "WEB_THREADS"),
        ("SERVER_ALIAS", "SERVER_ALIASES"),
        ("LOADTEST_RPS", "LOADTEST_MAX_RPS"),
        ("HSTS_SECOND", "HSTS_SECONDS"),
    ],
)
def test_unknown_name_with_our_prefix_is_refused(checkout: Checkout, name: str, meant: str) -> None:
    assert checkout.refusal(**{name: "3"}) == (
        f"{name} is '3' (from the environment), but there is no such setting; "
        f"expected a name from docs/configuration.md. Did you mean {meant!r}?"
    )


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "LOG_DIR",
        "CONTAINER_HOST",
        "TLS_VERIFY",
        "WEB_CONCURRENCY",
        "SERVER_SOFTWARE",
        "WEB_SERVICE_HOST",
        "WEB_SERVICE_PORT_HTTP",
        "ENGINE_PORT",
        "ENGINE_PORT_8000_TCP_ADDR",
    ],
)
def test_names_of_other_software_are_left_alone(checkout: Checkout, name: str) -> None:
    checkout.load(**{name: "tcp://10.0.0.1:8000"})


def test_unknown_name_that_is_empty_does_no_harm(checkout: Checkout) -> None:
    checkout.load(ENGINE_WORKER="")


def test_a_removed_setting_is_accepted_and_named(checkout: Checkout) -> None:
    checkout.write("env/local.env", "ALERTS_EMAIL_TO=ops@example.org\nALERTS_SMTP_USER=\n")
    given = {"ALERTS_SMTP_PORT": "25", "ALERTS_SMTP_PASSWORD_FILE": "/run/x", "ALERTS_SMTP_HOST": ""}
    checkout.load(**given)

    names = config.removed(given, checkout.root)

    assert names == ["ALERTS_EMAIL_TO", "ALERTS_SMTP_PASSWORD_FILE", "ALERTS_SMTP_PORT"]


def test_unknown_name_in_a_file_is_refused_whatever_its_prefix(checkout: Checkout) -> None:
    checkout.write("env/local.env", "\nPROT=8001\n")

    assert checkout.refusal() == (
        "PROT is '8001' (from env/local.env:2), but there is no such setting; "
        "expected a name from docs/configuration.md. Did you mean 'PORT'?"
    )


def test_value_of_an_unknown_name_that_sounds_secret_is_masked(checkout: Checkout) -> None:
    checkout.write("env/local.env", f"SECRET_KEYS={REAL_SECRET}\n")

    message = checkout.refusal()

    assert message.startswith("SECRET_KEYS is ******** (from env/local.env:1)")
    assert REAL_SECRET not in message


def test_file_cannot_choose_the_environment(checkout: Checkout) -> None:
    checkout.write("env/local.env", "ENV=prod\n")

    assert checkout.refusal() == (
        "ENV is 'prod' (from env/local.env:1); a file cannot choose the environment. Set ENV in the environment."
    )


def test_name_that_stands_twice_in_a_file_is_refused(checkout: Checkout) -> None:
    checkout.write("env/local.env", "PORT=1\nPORT=2\n")

    assert (
        checkout.refusal() == "PORT is '2' (from env/local.env:2), but env/local.env:1 sets it too; expected it once."
    )


@pytest.mark.parametrize(
    "line",
    [
        "PORT='8001'",
        'PORT="8001"',
        "export PORT=8001",
        "PORT = 8001",
        "PORT=8001 # comment",
        "PORT=8001 ",
        " PORT=8001",
        "PORT=$OTHER",
        "PORT=~/x",
        "PORT",
        "port=8001",
        "PORT=a;b",
        'PORT="80\n01"',
        "=8001",
        "'PORT=8001",
        "PORT=8001\tx",
        "\tPORT=8001",
        "PORT=81#23",
        "PORT=8001\\",
        "PORT=8\\001",
        "PORT=`id`",
        "SERVER_NAME=b\u00fcx",
        "PORT=8001\x00",
        "PORT=8001\x0b",
        "\x0c",
        "PORT=8001\u2028LOG_LEVEL=debug",
        "PORT=8001\rLOG_LEVEL=debug",
        "# a comment\rPORT=8001",
        "\ufeffPORT=8001",
    ],
)
def test_line_that_readers_would_disagree_about_is_refused(checkout: Checkout, line: str) -> None:
    checkout.write("env/local.env", f"# mine\n{line}\n")

    assert checkout.refusal().startswith("env/local.env:2 is not a plain line (at ")


def test_missing_file_of_the_environment_is_refused(checkout: Checkout) -> None:
    (checkout.root / "env/dev.env").unlink()

    assert checkout.refusal() == (
        f"env/dev.env cannot be read (No such file or directory); expected an env file in {checkout.root}."
    )


def test_file_that_is_not_text_is_refused(checkout: Checkout) -> None:
    (checkout.root / "env/local.env").write_bytes(b"\xff\xfe")

    assert checkout.refusal().startswith("env/local.env cannot be read (not UTF-8 text); ")


# Secrets


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_secret_is_required_where_strangers_call(checkout: Checkout, env: str) -> None:
    assert checkout.refusal(ENV=env) == (
        f"SECRET_KEY is not set (ENV is {env!r}); expected it in the environment, in the file that SECRET_KEY_FILE "
        "names, or in /run/secrets/secret_key: at least 16 random characters, such as `openssl rand -hex 32` prints."
    )


PLACEHOLDERS = [
    "changeme",
    "change-me",
    "CHANGE_ME_PLEASE_NOW",
    "secret",
    "my-secret-key-example",
    "example",
    "todo",
    "xxxxxxxxxxxxxxxxxxxxxxxx",
    "replace-me-with-a-long-value-42",
    "your-secret-key-here",
    "password1234567",
    config.DEVELOPMENT_KEY,
]


@pytest.mark.parametrize("value", PLACEHOLDERS)
@pytest.mark.parametrize("env", ["staging", "prod"])
def test_placeholder_is_refused_without_showing_it(checkout: Checkout, env: str, value: str) -> None:
    assert checkout.refusal(ENV=env, SECRET_KEY=value) == (
        "SECRET_KEY is ******** (from the environment); expected at least 16 random characters, such as "
        "`openssl rand -hex 32` prints; this one is a placeholder."
    )


@pytest.mark.parametrize(
    ("value", "why"), [("k9Qw3Zp7Lm2Xv5R", "has 15"), ("abab" * 10, "repeats few characters"), ("7", "has 1")]
)
def test_weak_secret_is_refused_with_the_reason(checkout: Checkout, value: str, why: str) -> None:
    assert checkout.refusal(ENV="prod", SECRET_KEY=value).endswith(f"; this one {why}.")


def test_placeholder_in_a_file_is_refused_with_its_path(checkout: Checkout) -> None:
    (checkout.secrets / "secret_key").write_text("changeme\n")

    message = checkout.refusal(ENV="prod")

    assert message.startswith(f"SECRET_KEY is ******** (from file {checkout.secrets / 'secret_key'}); ")


@pytest.mark.parametrize("value", [REAL_SECRET, "8e4f1a2b3c4d5e6f708192a3b4c5d6e7", "correct horse battery staple"])
def test_real_secret_is_taken(checkout: Checkout, value: str) -> None:
    assert checkout.load(ENV="prod", SECRET_KEY=value).secret_key.get_secret_value() == value


def test_developer_may_use_any_secret_or_none(checkout: Checkout) -> None:
    assert checkout.load(SECRET_KEY="x").secret_key.get_secret_value() == "x"  # noqa: S106 - not a secret
    assert checkout.load().secret_key.get_secret_value() == config.DEVELOPMENT_KEY


def test_secret_file_keeps_all_but_its_last_line_end(checkout: Checkout) -> None:
    key = checkout.write("key", f" {REAL_SECRET} \r\n")

    assert checkout.load(SECRET_KEY_FILE=str(key)).secret_key.get_secret_value() == f" {REAL_SECRET} "


def test_secret_file_is_found_from_the_repository(checkout: Checkout) -> None:
    checkout.write("key", REAL_SECRET)

    assert checkout.load(SECRET_KEY_FILE="key").secret_key.get_secret_value() == REAL_SECRET  # noqa: S106 - a path


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_secret_file_that_cannot_be_read_is_refused(checkout: Checkout, path: str) -> None:
    message = checkout.refusal(SECRET_KEY_FILE=path)

    assert message.startswith(
        f"SECRET_KEY_FILE is to come from the file {checkout.root / path}, which cannot be read ("
    )


@pytest.mark.parametrize("name", ["secret_key", "local.env"])
@pytest.mark.parametrize("kind", ["a FIFO (named pipe)", "a device"])
def test_file_that_never_ends_is_refused(checkout: Checkout, name: str, kind: str) -> None:
    path = (checkout.secrets if name == "secret_key" else checkout.root / "env") / name
    if kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)

    assert f"cannot be read (it is {kind}, not a regular file)" in checkout.refusal()


def test_mark_before_a_secret_is_no_part_of_it(checkout: Checkout) -> None:
    (checkout.secrets / "secret_key").write_bytes(b"\xef\xbb\xbf" + REAL_SECRET.encode() + b"\r\n")

    assert checkout.load().secret_key.get_secret_value() == REAL_SECRET


def test_secret_file_that_is_not_text_is_refused(checkout: Checkout) -> None:
    (checkout.secrets / "secret_key").write_bytes(b"\xff\xff")

    assert "cannot be read (not UTF-8 text)" in checkout.refusal()


def test_another_folder_of_secrets_can_be_named(checkout: Checkout) -> None:
    (checkout.root / "own").mkdir()
    (checkout.root / "own" / "secret_key").write_text(f"{REAL_SECRET}\n")

    settings = checkout.load(ENV="prod", SECRETS_DIR="own")

    assert settings.secret_key.get_secret_value() == REAL_SECRET
    assert settings.sources["secret_key"] == f"file {checkout.root / 'own' / 'secret_key'}"


def test_folder_of_secrets_that_is_none_is_refused(checkout: Checkout) -> None:
    checkout.write("own", "")

    assert checkout.refusal(SECRETS_DIR="own").startswith("SECRETS_DIR is 'own', which is no folder")


def test_closed_secret_file_is_refused_with_how_to_open_it(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkout.write("key", REAL_SECRET)

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("app.storage.files.read", refuse)

    refused, group = checkout.refusal(**dict.fromkeys(("SECRET_KEY_FILE",), "key")), os.getgid()
    assert refused.endswith(f"read it: chgrp {group} {path.parent} {path}; chmod 750 {path.parent}; chmod 640 {path}.")


def test_weak_second_key_is_refused_where_strangers_call(checkout: Checkout) -> None:
    given = {"ENV": "prod", "SECRET_KEY": REAL_SECRET}

    assert checkout.load(**given, SECRET_KEY_FALLBACK=OTHER_SECRET).secret_key_fallback.get_secret_value()
    assert "this one is a placeholder" in checkout.refusal(**given | {"SECRET_KEY_FALLBACK": "changeme"})


def test_http2_needs_https(checkout: Checkout) -> None:
    assert checkout.refusal(HTTP2="on").startswith("HTTP2 is 'on' (from the environment); expected off, as HTTPS_PORT")


def test_secret_file_that_is_not_needed_is_not_read(checkout: Checkout) -> None:
    (checkout.secrets / "secret_key").mkdir()

    environ = {"SECRET_KEY": REAL_SECRET, "SECRET_KEY_FILE": "/nowhere"}

    assert checkout.load(**environ).secret_key.get_secret_value() == REAL_SECRET


def test_only_secrets_come_from_files(checkout: Checkout) -> None:
    (checkout.secrets / "port").write_text("8001")

    assert checkout.load().port == 8000
    assert checkout.refusal(ENGINE_SOCKET_FILE="x").startswith("ENGINE_SOCKET_FILE is 'x'")


def test_secret_that_is_optional_may_be_missing_or_short(checkout: Checkout) -> None:
    assert checkout.load(ENV="prod", SECRET_KEY=REAL_SECRET).redis_place == ""
    settings = checkout.load(ENV="prod", SECRET_KEY=REAL_SECRET, REDIS_URL="redis://:x@cache.example:6379/2")

    assert (settings.redis_url.get_secret_value(), settings.redis_place) == (
        "redis://:x@cache.example:6379/2",
        "cache.example:6379/2",
    )


@pytest.mark.parametrize(
    "value",
    [
        *("redis", "redis://", "http://localhost", "redis://localhost:0", "redis://localhost:70000", "redis://a b"),
        *("redis://localhost/x", "redis://localhost/0?db=1", "redis://localhost#1", "unix:///run/redis.sock"),
    ],
)
def test_redis_url_that_is_none_is_refused_and_not_shown(checkout: Checkout, value: str) -> None:
    assert checkout.refusal(REDIS_URL=value) == (
        "REDIS_URL is ******** (from the environment); expected an address such as redis://localhost:6379/0, or "
        "rediss://user:password@host:6379/0 with TLS."
    )


@pytest.mark.parametrize("value", ["redis://localhost", "redis://10.0.0.1:6380/1", "rediss://u:p@[::1]:6379/0"])
def test_redis_url_is_taken(checkout: Checkout, value: str) -> None:
    assert checkout.load(REDIS_URL=value).redis_url.get_secret_value() == value


def test_jobs_in_redis_need_a_redis(checkout: Checkout) -> None:
    assert checkout.load(JOBS_STORE="redis", REDIS_URL="redis://localhost").jobs_store == "redis"
    assert checkout.refusal(JOBS_STORE="redis") == (
        "JOBS_STORE is 'redis' (from the environment); expected auto or disk, as REDIS_URL is not set."
    )


def test_cache_in_redis_needs_a_redis(checkout: Checkout) -> None:
    assert checkout.refusal(CACHE="redis") == (
        "CACHE is 'redis' (from the environment); expected auto, off or disk, as REDIS_URL is not set."
    )


def test_authority_of_redis_goes_with_its_address(checkout: Checkout, tmp_path: Path) -> None:
    path = Authority(tmp_path).certificate
    settings = checkout.load(REDIS_URL="rediss://:x@cache.example:6379/2", REDIS_CA_FILE=str(path))

    assert settings.redis_address == f"rediss://:x@cache.example:6379/2?ssl_ca_certs={quote(str(path), safe='')}"
    assert settings.redis_place == "cache.example:6379/2"
    assert checkout.load(REDIS_URL="redis://localhost").redis_address == "redis://localhost"


@pytest.mark.parametrize("name", ["REDIS_CA_FILE", "ENSEMBLE_CA_FILE"])
def test_authority_that_is_none_is_refused(checkout: Checkout, tmp_path: Path, name: str) -> None:
    letter = tmp_path / "letter.pem"
    letter.write_text("This is no certificate.")

    assert "expected a PEM file with certificates" in checkout.refusal(**{name: str(letter)})
    assert "expected a file that exists" in checkout.refusal(**{name: str(tmp_path / "none.pem")})


def test_authority_for_a_redis_in_clear_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    said = checkout.refusal(REDIS_URL="redis://localhost", REDIS_CA_FILE=str(Authority(tmp_path).certificate))

    assert "expected rediss:// in REDIS_URL beside it" in said


@pytest.mark.parametrize(
    "value", ["north", "=http://a", "North=http://a", "a=http://u:p@b", "a=http://b/path", "a=ftp://b", "a=http://b?c"]
)
def test_upstream_that_is_none_is_refused(checkout: Checkout, value: str) -> None:
    assert "ENSEMBLE_UPSTREAMS is " in checkout.refusal(ENSEMBLE_UPSTREAMS=value)


def test_upstreams_are_taken(checkout: Checkout) -> None:
    settings = checkout.load(ENSEMBLE_UPSTREAMS="north=https://north.example:8443/, a.b-c=http://10.0.0.1:8000")

    assert settings.ensemble_upstreams == ("north=https://north.example:8443", "a.b-c=http://10.0.0.1:8000")


def test_two_upstreams_of_one_name_are_refused(checkout: Checkout) -> None:
    assert "each name once" in checkout.refusal(ENSEMBLE_UPSTREAMS="a=http://b,a=http://c")


@pytest.mark.parametrize(("url", "is_refused"), [("http://b", True), ("https://b", False), ("http://127.0.0.1", False)])
def test_token_is_not_sent_in_clear_to_another_machine(checkout: Checkout, url: str, is_refused: bool) -> None:
    given = {"ENV": "prod", "SECRET_KEY": REAL_SECRET, "ENSEMBLE_TOKEN": OTHER_SECRET}
    if is_refused:
        assert "in clear" in checkout.refusal(**given, ENSEMBLE_UPSTREAMS=f"a={url}")
    else:
        assert checkout.load(**given, ENSEMBLE_UPSTREAMS=f"a={url}").ensemble_upstreams == (f"a={url}",)


def test_no_printed_form_of_settings_shows_a_secret(checkout: Checkout) -> None:
    settings = checkout.load(SECRET_KEY=REAL_SECRET, REDIS_URL=f"redis://:{OTHER_SECRET}@localhost")

    printed = f"{settings} {settings!r} {vars(settings)} {dict(settings.sources)}"

    assert REAL_SECRET not in printed
    assert OTHER_SECRET not in printed + settings.redis_place


# Weight


def test_import_brings_nothing_heavy() -> None:
    heavy = {"flask", "torch", "numpy", "pydantic", "rich", "PIL"}
    code = f"import sys, app.config; print(sorted({heavy} & set(sys.modules)))"
    environ = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"}

    out = subprocess.run(
        [sys.executable, "-c", code], cwd=config.ROOT, env=environ, capture_output=True, text=True, check=True
    )

    assert out.stdout == "[]\n"


def test_module_is_a_command_with_an_exit_status() -> None:
    environ = {"PATH": os.environ["PATH"], "ENV": "prdo", "PYTHONWARNINGS": "error"}

    out = subprocess.run(
        [sys.executable, "-m", "app.config", "check"], cwd=config.ROOT, env=environ, capture_output=True, text=True
    )

    assert (out.returncode, out.stdout) == (2, "")
    assert out.stderr.startswith("FAIL: ENV is 'prdo' (from the environment)")


def test_load_is_quick(checkout: Checkout) -> None:
    shutil.copytree(config.ROOT / "env", checkout.root / "env", dirs_exist_ok=True)

    fastest = min(_timed_load(checkout) for _ in range(5))

    assert fastest < 0.05


def _timed_load(checkout: Checkout) -> float:
    before = time.perf_counter()
    config.describe("prod", checkout.root)
    return time.perf_counter() - before


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("", ()),
        ("all", ("all",)),
        ("https://app.example/,http://localhost:3000", ("https://app.example", "http://localhost:3000")),
    ],
)
def test_origins_are_scheme_host_and_port(checkout: Checkout, value: str, meant: tuple[str, ...]) -> None:
    assert checkout.load(CORS_ORIGINS=value).cors_origins == meant


@pytest.mark.parametrize("value", ["*", "app.example", "https://app.example/path", "ftp://app.example", "null"])
def test_what_is_no_origin_is_refused(checkout: Checkout, value: str) -> None:
    assert checkout.refusal(CORS_ORIGINS=value).startswith(f"CORS_ORIGINS is {value!r}")


@pytest.mark.parametrize("value", ["600", "0/minute", "600 per minute", "10/second,x", "10/fortnight"])
def test_what_is_no_limit_of_requests_is_refused(checkout: Checkout, value: str) -> None:
    assert checkout.refusal(RATE_LIMIT_PER_TOKEN=value).startswith("RATE_LIMIT_PER_TOKEN is '")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "8000\r", r"PORT is '8000\r' (from the environment), but it ends with a carriage return"),
        ("\ufeffPORT", "8000", "PORT is '8000' (from the environment), but its name begins with a byte order mark"),
        ("REDIS_URL", "redis://:hidden@h:6379/0\r", "REDIS_URL is ******** (from the environment), but it ends"),
        ("PLUGIN_LEDGER_FOLDER", "/srv\r", "it ends with a carriage return"),
    ],
)
def test_what_a_shell_made_of_a_file_of_windows_is_refused(
    checkout: Checkout, name: str, value: str, words: str
) -> None:
    refused = checkout.refusal(ENV="test", **{name: value})

    assert words in refused
    assert "hidden" not in refused
