"""docker/steps read settings without Python: what they find is what app/config/schema.py says."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.config import DECLARATIONS, ENVIRONMENTS, SECRETS, read_env_file
from app.errors import SettingsError
from tests.servers import ROOT


def bash(script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f". docker/steps/common.sh; {script}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_setting_and_every_secret_is_known() -> None:
    assert set(bash("all_settings").stdout.split()) == set(DECLARATIONS)
    assert set(bash("secret_settings").stdout.split()) == {one.field for one in SECRETS}


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_line_of_any_editor_gives_its_value(tmp_path: Path, end: str, mark: str) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.env").write_bytes(f"{mark}PORT=8123{end}".encode())

    assert bash("setting PORT", ENV="prod", ENV_DIR=str(tmp_path / "env")).stdout == "8123"
    assert read_env_file(tmp_path, "env/local.env")["port"].value == "8123"


ODD = [
    "PORT='1'",
    "PORT=1 # why",
    "export PORT=1",
    "PORT=$A",
    "PORT=81#2",
    " PORT=1",
    "PORT=1\t",
    "PORT=b\u00fc",
    "PORT=1\\",
]
ODD += ["# why\rPORT=1", "PORT=1\0", "PORT=1\x0b", "PORT", "PORT=`id`", "PORT=1;A=2", "PORT=a b"]


@pytest.mark.parametrize("line", ODD)
def test_what_readers_would_disagree_about_is_refused_by_the_steps_as_by_python(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.env").write_bytes(f"# mine\r\n\n{line}\nLOG_LEVEL=info\n".encode())

    done = bash("refuse_odd_lines", ENV="prod", ENV_DIR=str(tmp_path / "env"))

    assert "env/local.env:3 is not a plain line" in done.stderr
    with pytest.raises(SettingsError, match=r"env/local\.env:3 is not a plain line"):
        read_env_file(tmp_path, "env/local.env")


def test_what_an_operator_needs_at_night_goes_on_without_an_odd_line(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.env").write_text("PORT=80 01\nHTTPS_PORT=8443\n")
    (tmp_path / "env" / "prod.env").write_text("")

    done = bash('load_settings note_fault; echo "<$PORT> <$HTTPS_PORT>"', ENV="prod", ENV_DIR=str(tmp_path / "env"))

    assert (done.returncode, done.stdout) == (0, "<> <8443>\n")
    assert done.stderr.startswith("Note: ")
    assert "env/local.env:1 is not a plain line" in done.stderr
    for step in ("down", "history", "ps", "recycle"):
        assert "\nload_settings note_fault\n" in (ROOT / f"docker/steps/{step}.sh").read_text()


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_our_own_files_are_plain_to_the_steps(env: str) -> None:
    assert bash("refuse_odd_lines; echo fine", ENV=env).stdout == "fine\n"


@pytest.mark.parametrize(
    ("serves", "settings", "env"),
    [
        ("staging", {}, "staging"),
        ("staging", {"ENV": "prod"}, "prod"),
        ("", {"SITE_ENV": "test"}, "test"),
        ("", {}, "prod"),
        ("development", {"SITE_ENV": "test"}, "dev"),
    ],
)
def test_a_command_without_env_takes_that_of_what_serves(serves: str, settings: dict[str, str], env: str) -> None:
    engine = (
        'choose_docker() { DOCKER=engine; }; container() { printf %s "$SERVES"; }; engine() { echo "ENV=$SERVES"; }'
    )

    done = bash(f"{engine}; choose_environment; echo $ENV", SERVES=serves, **settings)

    assert (done.stdout.strip(), done.returncode) == (env, 0), done.stderr


def test_a_site_notes_what_serves(tmp_path: Path) -> None:
    site = tmp_path / "site.conf"
    site.write_text("ENV=prod\nCOMPOSE_PROJECT_NAME=cask\n")

    bash("DOCKER=x; environment_of_service() { echo staging; }; note_environment", ENV="prod", SITE_CONF=str(site))

    assert site.read_text() == "ENV=staging\nCOMPOSE_PROJECT_NAME=cask\n"


NOISE = '{"time": "2026-11-29T10:00:00.000Z", "level": "info", "logger": "cask.engine", "message": "loading"}'
REASONS = [
    (f"{NOISE}\nFAIL: PORT is 70000\n\n{NOISE}\n", "PORT is 70000"),
    (
        '{"time": "x", "level": "error", "logger": "cask.start", "message": "no \\"model\\" in C:\\\\"}\n',
        'no "model" in C:\\',
    ),
    ('{"level":"critical","message":"one","request_id":"a"}\n{"level":"error","message":"two"}\n', "two"),
    (f"out of memory\n{NOISE}\n", "out of memory"),
    (NOISE, ""),
    ("", ""),
]


@pytest.mark.parametrize(("log", "reason"), REASONS)
def test_the_reason_of_a_failed_start_is_found_in_either_form_of_log(tmp_path: Path, log: str, reason: str) -> None:
    (tmp_path / "log").write_text(log)

    done = bash(f"last_reason <{tmp_path}/log")

    assert (done.stdout.rstrip("\n"), done.returncode) == (reason, 0)


@pytest.mark.parametrize("value", ["a'b", "$HOME ${X} $$", 'say "x"', "# no comment", "back\\slash", "- : {", "ünï"])
def test_a_given_setting_reaches_compose_as_it_is(tmp_path: Path, value: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the file as Compose does")
    project = f"steps-{tmp_path.name}"
    path = ROOT / "build" / f"compose.{project}.given.yaml"
    done = bash("write_given_settings", COMPOSE_PROJECT_NAME=project, SERVER_NAME=value, LOADTEST_TOKEN=value)
    try:
        written = yaml.safe_load(path.read_text())["services"]["cask"]["environment"]
    finally:
        path.unlink(missing_ok=True)

    assert done.returncode == 0, done.stderr
    # Compose halves each dollar sign.
    assert {name: text.replace("$$", "$") for name, text in written.items()} == {"SERVER_NAME": value}


def test_docker_is_not_asked_for_another_engine(tmp_path: Path) -> None:
    other = tmp_path / "podman"
    other.write_text('#!/bin/sh\n[ "$1" != compose ]\n')
    other.chmod(0o755)

    done = bash("run_compose version", DOCKER=str(other))

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert f"{other} compose" in done.stderr


def test_what_is_given_to_make_reaches_the_programs_as_it_was_typed(tmp_path: Path) -> None:
    makefile = tmp_path / "Makefile"
    makefile.write_text("include Makefile\nprobe:\n\t@printenv PORT REDIS_URL\n")

    typed = ["PORT=8001", "REDIS_URL=re$x\"y ' z#"]
    done = subprocess.run(
        ["make", "-s", "-f", str(makefile), "probe", *typed], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == ["8001", "re$x\"y ' z#"], done.stderr


# What an engine says of the container that serves: it takes 221 MB, and 250 MB of the machine are free.
ENGINE = """#!/bin/sh
case "$*" in
    *MemAvailable*) echo 250 ;;
    *'cat /proc'*) printf 'RssAnon: 225000 kB\\nRssFile: 90000 kB\\nRssShmem: 1304 kB\\n' ;;
    *State.Running*) echo true ;;
    *Mounts*) echo /edge ;;
esac
"""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {},
            "needs 276 MB of free memory to start a release beside the one that serves (which takes 221 MB), found 250",
        ),
        ({"MIN_FREE_MB": "1000"}, "needs 1000 MB of free memory"),
        ({"MIN_FREE_MB": "240"}, ""),
        ({"STOP_FIRST": "yes"}, ""),
    ],
)
def test_too_little_memory_for_two_is_said_with_figures_and_a_way(
    tmp_path: Path, given: dict[str, str], words: str
) -> None:
    engine = tmp_path / "docker"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    script = """. docker/steps/release.sh; . docker/steps/changeover.sh; ACTION=rollback ENV=prod
        still_serves() { echo ' It serves on.'; }; need_room serving 7"""

    done = bash(script, DOCKER=str(engine), **given)

    assert (done.returncode == 0) == (not words), done.stderr
    assert words in done.stderr
    if words:
        assert "It serves on." in done.stderr
        assert "make rollback ENV=prod STOP_FIRST=yes" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("STOP_FIRST", "maybe"), ("DOCTOR", "1"), ("MIN_FREE_MB", "1g"), ("MIN_FREE_MB", "-1")]
)
def test_an_option_of_a_deploy_that_is_none_is_refused_before_it_begins(name: str, value: str) -> None:
    done = bash(". docker/steps/release.sh; . docker/steps/changeover.sh; need_choices", **{name: value})

    assert done.returncode == 2
    assert f"needs {name} to be " in done.stderr
    assert f"found «{value}»" in done.stderr


def test_an_engine_that_ended_in_a_deploy_is_told_as_that() -> None:
    script = """. docker/steps/release.sh; . docker/steps/changeover.sh
        RELEASE=4 REASON="it ended" DOCKER=false; restore_release 4 "" """

    done = bash(script, ENV="prod")

    assert done.returncode == 1
    assert "FAIL: the container engine ended before release 4 served, or does not answer." in done.stderr
    assert "nothing served before" not in done.stderr


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("172.18.0.0/16", "172.18.0.1 172.18.0.2 172.18.0.23 128"),
        ("192.168.16.0/20", "192.168.16.1 192.168.16.2 192.168.16.23 128"),
        ("10.3.4.0/24", "10.3.4.1 10.3.4.2 10.3.4.23 128"),
        ("10.3.4.128/25", "10.3.4.129 10.3.4.130 10.3.4.177 64"),
        ("10.3.4.64/26", "10.3.4.65 10.3.4.66 10.3.4.87 32"),
    ],
)
def test_a_release_has_an_address_in_whatever_range_the_engine_gives(given: str, addresses: str) -> None:
    words = 'echo "$(host_address) $(edge_address) $(release_address 107) $(own_addresses "$(back_range)")"'

    assert bash(f"back_range() {{ echo {given}; }}; {words}").stdout.strip() == addresses


def test_the_edge_knows_each_address_that_a_release_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "edge_address; for number in $(seq 1 250); do echo; release_address $number; done"
    monkeypatch.syspath_prepend(ROOT / "apache")
    known = runpy.run_path(str(ROOT / "apache" / "edge.py"))["workers"]
    settings = SimpleNamespace(port=8000)
    for given in ("172.18.0.0/16", "10.3.4.0/25", "10.3.4.128/25", "10.3.4.64/26", "10.3.4.192/26"):
        edge, *releases = bash(f"back_range() {{ echo {given}; }}; {words}").stdout.split()
        monkeypatch.setenv("CASK_EDGE_ADDRESS", edge)
        workers = "\n".join(known(settings))

        assert all(f'"http://{each}:8000"' in workers for each in releases), given


# An engine whose next network has $RANGE, which somebody else takes $TAKEN times before it is made a second time.
NETWORKS = """
docker() {
    case "$1 $2" in
        "network inspect") cat made 2>/dev/null ;;
        "network rm") rm made ;;
        "network create")
            [ -n "$RANGE" ] || { echo "all predefined address pools have been fully subnetted" >&2; return 1; }
            if [ "$3" = --subnet ] && [ "$(wc -c <taken)" -lt "$TAKEN" ]; then
                printf x >>taken
                echo "Pool overlaps with other one on this address space" >&2
                return 1
            fi
            printf '%b' "$RANGE" >made
            echo "$@" >>created ;;
    esac
}
cd "$FOLDER"; touch taken; DOCKER=docker; still_serves() { :; }
"""


@pytest.mark.parametrize(
    ("given", "taken", "last"),
    [
        ("172.18.0.0/16", "0", "--subnet 172.18.0.0/16 --gateway 172.18.0.1 --ip-range 172.18.0.128/25 x_back"),
        ("172.18.0.0/16", "3", "--subnet 172.18.0.0/16 --gateway 172.18.0.1 --ip-range 172.18.0.128/25 x_back"),
        ("fd00:1::/64\\n10.3.4.64/26", "0", "--subnet 10.3.4.64/26 --gateway 10.3.4.65 --ip-range 10.3.4.96/27 x_back"),
    ],
)
def test_a_network_is_made_of_what_the_engine_has_free(tmp_path: Path, given: str, taken: str, last: str) -> None:
    settings = {"COMPOSE_PROJECT_NAME": "x", "FOLDER": str(tmp_path), "RANGE": given, "TAKEN": taken}
    made = bash(f"{NETWORKS} make_network", **settings)

    assert made.returncode == 0, made.stderr
    assert (tmp_path / "created").read_text().splitlines()[-1] == f"network create {last}"


@pytest.mark.parametrize(
    ("given", "taken", "reason"),
    [
        ("", "0", "all predefined address pools have been fully subnetted"),
        ("10.3.4.64/28", "0", "the next one is 10.3.4.64/28"),
        ("fd00:1::/64", "0", "the next one is without addresses of IPv4"),
        ("172.18.0.0/16", "99", "Pool overlaps with other one on this address space"),
    ],
)
def test_an_engine_without_a_network_for_us_is_told_with_what_it_says(
    tmp_path: Path, given: str, taken: str, reason: str
) -> None:
    settings = {"COMPOSE_PROJECT_NAME": "x", "FOLDER": str(tmp_path), "RANGE": given, "TAKEN": taken}
    made = bash(f"{NETWORKS} make_network", **settings)

    assert made.returncode == 2
    assert f"needs a network of its own, with 64 addresses or more, found none: {reason}." in made.stderr
    assert "default-address-pools" in made.stderr
