"""What the container is: who it runs as, what it may do, what is in it, and that it answers rightly."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.servers import ROOT, wait_until
from tests.system import containers
from tests.system.containers import RunOnce, Stack

COMPILERS = ("gcc", "cc", "g++", "c++", "clang", "ld", "as", "make", "apxs", "pip")
READ_ONLY = ["/", "/app", "/app/models", "/app/env", "/etc", "/usr", "/var", "/run", "/home"]
WRITTEN = ["/var/lib/cask", "/tmp"]  # noqa: S108 - a tmpfs of the container


def test_make_smoke_finds_the_right_boxes(stack: Stack) -> None:
    printed = stack.step("smoke")

    assert "samples right" in printed


def test_process_1_is_apache(stack: Stack) -> None:
    assert stack.execute("cat", "/proc/1/comm") == "apache2"


def test_every_process_is_user_10001_without_any_capability(stack: Stack) -> None:
    script = "cat /proc/[0-9]*/status 2>/dev/null | grep -E '^(Uid|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)'"

    rows = {tuple(line.split()) for line in stack.execute("sh", "-c", script).splitlines()}

    assert rows == {
        ("Uid:", "10001", "10001", "10001", "10001"),
        ("NoNewPrivs:", "1"),
        *((f"Cap{name}:", "0" * 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
    }


def test_root_is_read_only_and_only_state_and_tmp_are_written(stack: Stack) -> None:
    refused = [each for each in READ_ONLY if "Read-only" in stack.execute("touch", f"{each}/x", check=False)]
    written = [each for each in WRITTEN if not stack.execute("sh", "-c", f"touch {each}/x && rm {each}/x")]

    assert stack.inspect("{{json .HostConfig.ReadonlyRootfs}}") is True
    assert refused == READ_ONLY
    assert written == WRITTEN


def test_container_is_bounded_and_never_gets_a_terminal(stack: Stack) -> None:
    host = stack.inspect("{{json .HostConfig}}")
    config = stack.inspect("{{json .Config}}")

    assert host["Memory"] == 2 * 1024**3
    assert host["PidsLimit"] == 8192
    assert host["CapDrop"] == ["ALL"]
    assert host["LogConfig"]["Config"]["max-size"] == "20m"
    assert host["RestartPolicy"]["Name"] == "always"
    assert not host["PortBindings"]
    assert (config["Tty"], config["OpenStdin"], config["StopSignal"]) == (False, False, "SIGWINCH")


def test_the_edge_may_do_less_and_owns_the_port(stack: Stack) -> None:
    found = json.loads(containers.docker("inspect", stack.edge))[0]
    host, config = found["HostConfig"], found["Config"]

    assert host["PortBindings"] == {f"{stack.port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Memory"]) == (True, ["ALL"], 512 * 1024**2)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGWINCH")
    # Nobody in it could speak with the engine, or change who serves.
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    assert mounts == {"/edge": False, "/var/lib/cask": True}


def test_no_compiler_is_left_in_the_image(stack: Stack) -> None:
    script = "for name; do command -v $name; done; true"

    assert stack.execute("sh", "-c", script, "sh", *COMPILERS) == ""


def test_no_tool_that_makes_models_is_left_in_the_image(stack: Stack) -> None:
    script = "import importlib.util as u; print([n for n in ('nncf', 'scipy', 'sklearn') if u.find_spec(n)])"

    assert stack.execute("python", "-c", script) == "[]"


def test_the_code_is_compiled(stack: Stack) -> None:
    """A read-only root cannot keep what Python compiles, so each start would compile everything."""
    script = "find app docker -name '*.py' | wc -l; find app docker -name '*.pyc' | wc -l"

    sources, compiled = stack.execute("sh", "-c", script).split()

    assert int(sources) == int(compiled) > 0


def test_labels_and_version_name_the_same_build(stack: Stack) -> None:
    labels = json.loads(containers.docker("image", "inspect", "-f", "{{json .Config.Labels}}", containers.IMAGE))
    version = stack.ask("/version").json

    for name in ("version", "revision", "created"):
        assert labels[f"org.opencontainers.image.{name}"] == version[name]


def test_engine_sees_it_healthy(stack: Stack) -> None:
    wait_until(lambda: stack.inspect("{{json .State.Health.Status}}") == "healthy", 60, "the health check to pass")


def test_doctor_finds_nothing_that_fails(stack: Stack) -> None:
    stack.make_token("for-the-doctor")
    said = json.loads(stack.execute("flask", "doctor", "--json"))
    rows = {row["subject"]: row for row in said["findings"]}
    unwell = {subject for subject, row in rows.items() if row["verdict"] != "ok"}
    print([row for row in said["findings"] if row["verdict"] != "ok"])

    assert said["ok"] is True
    # No certificate was given, and nobody may keep the clock of the machine that tests.
    assert unwell <= {"TLS", "Clock"}
    assert rows["Service user"]["found"] == "cask, who runs this"
    assert rows["State"]["found"] == "cask may write /var/lib/cask"
    assert rows[f"Port {stack.port}"]["found"] == "ours, process 1"
    assert rows["Service"]["found"].startswith("ready; ")
    assert rows["Memory"]["found"].endswith(" now")
    assert "SHA-256 as in the manifest" in rows["Model"]["found"]
    assert "docker logs" in rows["Last start"]["found"]


def test_doctor_of_a_root_without_power_raises_no_false_alarm(stack: Stack) -> None:
    said = json.loads(containers.docker("exec", "--user", "0", stack.id, "flask", "doctor", "--json"))
    rows = {row["subject"]: row for row in said["findings"]}

    assert said["ok"] is True
    assert rows["Service user"]["found"].startswith("cask, who runs process 1")
    assert "make shell" in rows["Service user"]["next_step"]


def test_make_shell_runs_an_operators_commands(stack: Stack) -> None:
    """As docs/administration.md says: tokens, a prediction, jobs, models; with the container's settings and state."""

    def shell(command: str) -> str:
        return stack.step("shell", COMMAND=command)

    made = json.loads(shell("flask token create gate-3-camera --json"))
    assert shell("flask token list").count("gate-3-camera") == 1
    rows = [json.loads(line) for line in shell("flask predict models/samples/cone.jpg --json").splitlines()]
    shell(f"flask token revoke {made['id']}")

    assert "cone" in json.dumps(rows)
    assert "There is no job." in shell("flask jobs list")
    assert shell("flask model list").count(" ready ") == len(stack.ask("/v1/models").json["models"])
    assert "WEB_THREADS" in shell("flask config show")
    assert {row["path"] for row in json.loads(shell("flask routes --json --path /v1/detect"))} == {"/v1/detect"}
    assert "ok    Service          ready" in shell("flask doctor")


def test_secret_is_a_file_and_in_no_variable(stack: Stack) -> None:
    secret = (stack.folder / "secrets" / "secret_key").read_text()

    assert len(secret) == 64
    assert stack.execute("cat", "/run/secrets/secret_key") == secret
    assert secret not in stack.execute("env")
    assert secret not in json.dumps(stack.inspect("{{json .}}"))
    assert secret not in stack.logs()


def test_log_is_one_json_object_a_line(stack: Stack) -> None:
    stack.ask("/version")

    lines = stack.logs().splitlines()

    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_docker_shell_and_python_read_the_same_values(run_once: RunOnce) -> None:
    path = ROOT / "env" / "prod.env"
    names = [line.split("=")[0] for line in path.read_text().splitlines() if line and not line.startswith("#")]
    shell = f"set -a; . {path}; env -0"

    status, printed, _ = run_once("--env-file", str(path), command=("python", "-c", _PRINT_ENVIRONMENT))
    in_container = json.loads(printed)
    in_shell = subprocess.run(["sh", "-c", shell], env={}, capture_output=True, text=True, check=True).stdout
    by_shell = dict(row.split("=", 1) for row in in_shell.split("\0") if row)
    by_python = dict(row.partition("=")[::2] for row in path.read_text().splitlines() if row[:1] not in ("", "#"))

    assert status == 0
    assert names
    assert {name: in_container[name] for name in names} == {name: by_shell[name] for name in names} == by_python


_PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def test_settings_in_force_are_those_of_the_env_file(stack: Stack) -> None:
    path = ROOT / "env" / "prod.env"
    wanted = dict(row.partition("=")[::2] for row in path.read_text().splitlines() if row[:1] not in ("", "#"))
    # A folder that is named by its place below the checkout is shown whole.
    own = {"PORT": str(stack.port), "LISTEN_HOST": "0.0.0.0", "PLUGINS_DIR": "/app/plugins"}  # noqa: S104 - inside the container
    one = next(iter(wanted))

    found = json.loads(stack.execute("python", "-c", _GET_EACH, *wanted))
    by_a_process_of_its_own = stack.execute("python", "-m", "app.cli", "config", "get", one)

    # An empty value means: not set here, so the default is in force.
    assert {name: found[name] for name, value in wanted.items() if value} == {
        name: own.get(name, value) for name, value in wanted.items() if value
    }
    assert by_a_process_of_its_own == found[one]


# `config get` of each, as an operator runs it, without a process each.
_GET_EACH = """
import json, sys
from click.testing import CliRunner
from app.cli.__main__ import main
print(json.dumps({name: CliRunner().invoke(main, ["config", "get", name]).stdout.strip() for name in sys.argv[1:]}))
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-e", "ENV=prdo"), ("ENV", "prdo", "prod")),
        (("-e", "SECRET_KEY=changeme"), ("SECRET_KEY",)),
        ((), ("SECRET_KEY",)),
        (("-e", "SECRET_KEY=" + "0f1e2d3c4b5a6978" * 4, "-e", "WEB_THREADS=many"), ("WEB_THREADS", "many")),
    ],
    ids=["unknown ENV", "placeholder secret", "no secret", "wrong number"],
)
def test_wrong_setting_ends_the_start_at_once(
    run_once: RunOnce, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    status, printed, seconds = run_once(*options)

    assert status == 2, printed
    # Two on a quiet machine; other tests run beside.
    assert seconds < 20
    assert len(printed.strip().splitlines()) == 1, printed
    assert all(word in printed for word in words), printed


def test_up_says_why_it_starts_nothing(unstarted: Stack) -> None:
    settings = {**os.environ, **unstarted.settings(), "BUILD": "no", "WEB_THREADS": "many"}

    done = subprocess.run(
        [containers.STEPS / "up.sh"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 2
    assert "WEB_THREADS is 'many'" in done.stderr
    assert unstarted.id == ""
