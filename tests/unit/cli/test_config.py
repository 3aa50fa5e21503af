"""``flask config``: what is shown, compared, checked and written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from app import config
from app.cli import settings_document
from app.cli.config import command
from tests.checkouts import Checkout

REAL_SECRET = "q7Wm2xN9vRk4Ls8Tz1Bd"  # noqa: S105 - made up
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    # Not tmp_path: with the name of the test in it, the socket's path would be too long.
    with tempfile.TemporaryDirectory(prefix="cask-") as folder:
        yield Checkout(Path(folder))


@pytest.fixture
def run(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command: exit status, stdout, stderr."""

    def invoke(*arguments: str, **environ: str) -> tuple[int, str, str]:
        here = config.Sources(environ, checkout.root, checkout.secrets)
        monkeypatch.setattr("app.cli.config.Sources", lambda: here)
        done = CliRunner().invoke(command, arguments)
        return done.exit_code, done.stdout, done.stderr

    return invoke


def test_show_prints_value_source_and_meaning_by_section(run: Run) -> None:
    status, out, err = run("show", PORT="8001", SECRET_KEY=REAL_SECRET)

    lines = out.splitlines()
    assert (status, err, lines[0]) == (0, "", "Settings in force for dev")
    port = next(line for line in lines if line.startswith("  PORT "))
    assert port.split(maxsplit=3) == ["PORT", "8001", "environment", "The port for plain HTTP."]
    assert lines.index("Addresses and TLS") < lines.index(port) < lines.index("Engine")
    assert REAL_SECRET not in out


def test_show_works_before_the_secret_is_there_and_says_so(run: Run) -> None:
    status, out, err = run("show", ENV="prod")

    assert (status, "SECRET_KEY" in out) == (0, True)
    assert err.startswith("The service would not start so: SECRET_KEY is not set")


def test_show_as_json_has_every_setting_and_no_secret(run: Run) -> None:
    status, out, _ = run("show", "--json", SECRET_KEY=REAL_SECRET)

    said = json.loads(out)
    rows = {row["name"]: row for row in said["settings"]}
    assert (status, said["env"], said["problem"]) == (0, "dev", None)
    assert set(rows) == {field.upper() for field in config.DECLARATIONS}
    assert rows["PORT"]["value"] == 8000
    assert rows["IMAGES_FORMATS"]["value"] == ["jpeg", "png", "webp"]
    assert (rows["SECRET_KEY"]["value"], rows["SECRET_KEY"]["secret"]) == ("********", True)


def test_diff_prints_only_what_differs_and_needs_no_secret(run: Run, checkout: Checkout) -> None:
    checkout.write("env/prod.env", "PORT=80\n")
    checkout.write("env/local.env", "LOG_LEVEL=error\n")

    status, out, _ = run("diff", "dev", "production", PORT="9999")

    named = [line.split()[:3] for line in out.splitlines() if line.startswith("  ")]
    assert status == 0
    assert named == [
        ["Setting", "dev", "prod"],
        ["ENV", "dev", "prod"],
        ["PORT", "8000", "80"],
        ["LOADTEST_HOST", "http://127.0.0.1:8000", "http://127.0.0.1:80"],
    ]


def test_diff_as_json(run: Run, checkout: Checkout) -> None:
    checkout.write("env/prod.env", "PORT=80\n")

    _, out, _ = run("diff", "--json", "dev", "prod")

    assert json.loads(out)["PORT"] == {"dev": 8000, "prod": 80}


def test_diff_of_an_environment_with_itself_is_empty(run: Run) -> None:
    assert run("diff", "dev", "development")[1] == "Nothing differs between dev and dev.\n"


def test_diff_refuses_an_unknown_environment(run: Run) -> None:
    status, out, err = run("diff", "dev", "prdo")

    assert (status, out) == (2, "")
    assert err.startswith("FAIL: ENV is 'prdo'") and err.endswith("Did you mean 'prod'?\n")


def test_check_says_yes_or_exits_2_with_one_line(run: Run) -> None:
    assert run("check")[0] == 0

    status, out, err = run("check", ENV="prdo")

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("FAIL: ENV is 'prdo'")


def test_get_prints_one_raw_value(run: Run, checkout: Checkout) -> None:
    assert run("get", "PORT", PORT="8001") == (0, "8001\n", "")
    assert run("get", "debug") == (0, "false\n", "")
    assert run("get", "STATE_DIR") == (0, f"{checkout.root}/var\n", "")
    assert run("get", "IMAGES_FORMATS") == (0, "jpeg,png,webp\n", "")
    assert run("get", "IMAGES_FORMATS", "--json") == (0, '[\n  "jpeg",\n  "png",\n  "webp"\n]\n', "")
    assert run("get", "TLS_KEY") == (0, "\n", "")
    assert run("get", "CONTAINER_CPUS", CONTAINER_CPUS="1.50") == (0, "1.5\n", "")


def test_get_goes_on_without_what_is_wrong_elsewhere(run: Run, checkout: Checkout) -> None:
    """`make stop` asks so for STATE_DIR, and an operator may need it while somebody mends the file."""
    checkout.write("env/local.env", "STATE_DIR=/srv/cask\nPORT = 8001\nLOG_LEVEL=loud\nPROT=1\nWEB_THREADS=4\n")

    status, out, err = run("get", "STATE_DIR")

    assert (status, out) == (0, "/srv/cask\n")
    notes = err.splitlines()
    assert [note.partition(" (from")[0].partition(" is ")[0] for note in notes] == [
        *("Note: env/local.env:2", "Note: PROT", "Note: LOG_LEVEL")
    ]
    assert all(note.endswith("This command goes on without it.") for note in notes)
    assert run("get", "WEB_THREADS")[:2] == (0, "4\n")


@pytest.mark.parametrize("line", ["export STATE_DIR=/srv/cask", 'STATE_DIR="/srv/cask"', "STATEDIR=/srv/cask"])
def test_get_of_what_may_be_wrong_is_refused(run: Run, checkout: Checkout, line: str) -> None:
    checkout.write("env/local.env", f"{line}\n")

    status, out, err = run("get", "STATE_DIR")

    assert (status, out) == (2, "")
    assert "STATE_DIR may be meant: mend it, or say STATE_DIR=… in the command." in err
    assert run("get", "STATE_DIR", STATE_DIR="/srv/cask")[:2] == (0, "/srv/cask\n")


def test_get_of_anything_is_refused_where_the_file_cannot_be_read(run: Run, checkout: Checkout) -> None:
    (checkout.root / "env/local.env").write_bytes(b"STATE_DIR=\xff\xfe")

    assert run("get", "PORT")[0] == 2
    assert run("get", "PORT", PORT="8001")[:2] == (0, "8001\n")


def test_get_prints_a_secret_only_when_asked_twice(run: Run) -> None:
    status, out, err = run("get", "SECRET_KEY", SECRET_KEY=REAL_SECRET)

    assert (status, out) == (2, "")
    assert err == "FAIL: SECRET_KEY is secret.\nNext: Add --secret to print it all the same.\n"
    assert run("get", "SECRET_KEY", "--secret", SECRET_KEY=REAL_SECRET) == (0, f"{REAL_SECRET}\n", "")


def test_get_works_before_the_secret_is_there(run: Run) -> None:
    assert run("get", "CONTAINER_MEMORY", ENV="prod") == (0, "2g\n", "")


def test_get_of_an_unknown_name_suggests_another(run: Run) -> None:
    assert run("get", "POTR") == (2, "", "FAIL: 'POTR' is no setting. Did you mean 'PORT'?\n")


def test_docs_writes_the_document(run: Run, checkout: Checkout) -> None:
    assert run("docs") == (0, "Wrote docs/configuration.md.\n", "")
    assert (checkout.root / "docs/configuration.md").read_text() == settings_document.text(checkout.root)


def test_an_environment_can_be_named_without_env(run: Run) -> None:
    assert run("get", "ENV", "--env", "prod", ENV="test")[1] == "prod\n"
    assert json.loads(run("show", "--env", "production", "--json")[1])["env"] == "prod"
    assert run("check", "--env", "prod")[2].startswith("FAIL: SECRET_KEY is not set (ENV is 'prod')")
