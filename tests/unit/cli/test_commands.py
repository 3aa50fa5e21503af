"""The group of commands: each is found by flask and by python -m app.cli, explains itself and starts quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import cli
from app.config import ROOT

FLASK = Path(sys.executable).with_name("flask")


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's root, in ENV=test unless told otherwise."""
    kept = {"PATH": os.environ["PATH"], "ENV": "test", **environ}
    return subprocess.run(
        [str(each) for each in arguments], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
    )


def test_flask_lists_our_commands_and_not_those_of_its_extensions() -> None:
    done = run(FLASK, "--help")

    listed = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert set(listed) == {*cli.COMMANDS, "run", "shell"}


def test_module_lists_the_same_commands() -> None:
    done = run(sys.executable, "-m", "app.cli", "--help")

    listed = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert listed == sorted(cli.COMMANDS)


HEAVY = "print(*(each for each in ('flask', 'numpy', 'pydantic', 'redis', 'rich', 'torch') if each in sys.modules))"


def test_list_of_all_commands_reads_none_of_them() -> None:
    code = f"import sys; from app.cli.__main__ import main; main(['--help'], standalone_mode=False); {HEAVY}"

    assert run(sys.executable, "-c", code).stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_command_that_is_explained_loads_no_torch(name: str) -> None:
    done = run(sys.executable, "-c", f"import sys; from app import cli; cli.load(sys.argv[1]); {HEAVY}", name)

    assert not {"redis", "rich", "torch"} & set(done.stdout.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    assert (cli.load(name).help or "").startswith(cli.COMMANDS[name])


KEY = "5c1f0b7e93a84d26ba0e17c4f2d8396b"


def test_flask_run_is_for_development_only() -> None:
    done = run(FLASK, "run", ENV="prod", SECRET_KEY=KEY)

    assert done.returncode == 1
    assert done.stderr.startswith("FAIL: flask run is Flask's development server, and ENV is 'prod'.\nNext: make serve")


def test_flask_run_says_in_one_line_which_setting_is_wrong() -> None:
    done = run(FLASK, "run", ENV="nix")

    assert done.returncode == 2
    assert done.stderr.startswith("FAIL: ENV is 'nix'")
    assert "Traceback" not in done.stderr


def test_flask_shell_has_the_services_own_settings(tmp_path: Path) -> None:
    words = "print(app.config['SECRET_KEY'], app.debug, app.extensions['settings'].env)"
    done = subprocess.run(
        [FLASK, "shell"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "ENV": "dev", "SECRET_KEY": KEY, "STATE_DIR": str(tmp_path)},
        input=words,
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{KEY} True dev" in done.stdout, done.stderr


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flask_routes_prints_the_services_addresses() -> None:
    done = run(FLASK, "routes")

    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert ["/v1/classify", "POST", "predict", "Name what is in images"] in rows
    assert ["/status", "GET", "admin", "Status"] in rows
    assert ["/livez", "GET", "anybody", "Alive"] in rows


@pytest.mark.parametrize("command", [(FLASK,), (sys.executable, "-m", "app.cli")])
def test_routes_as_json_leave_no_state_behind(tmp_path: Path, command: tuple[str | Path, ...]) -> None:
    done = run(*command, "routes", "--json", "--path", "/v1/", STATE_DIR=str(tmp_path / "state"))

    rows = {row["path"]: row for row in json.loads(done.stdout)}
    assert rows["/v1/detect"]["methods"] == ["POST"]
    assert all(path.startswith("/v1/") for path in rows)
    assert not (tmp_path / "state").exists()


def test_flask_routes_elsewhere_are_those_of_the_application_there(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from flask import Flask\napp = Flask('shop')\n")

    done = subprocess.run([FLASK, "--app", "shop", "routes"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "/static/<path:filename>" in done.stdout
    assert "/v1/" not in done.stdout


def test_routes_are_printed_where_the_settings_are_wrong() -> None:
    done = run(sys.executable, "-m", "app.cli", "routes", PORT="many")

    assert done.returncode == 0
    assert "/v1/detect" in done.stdout
    assert "PORT is 'many'" in done.stderr


def test_routes_without_a_match_say_so() -> None:
    done = run(sys.executable, "-m", "app.cli", "routes", "--path", "nowhere")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("FAIL: No address holds 'nowhere'.\nNext: ")
