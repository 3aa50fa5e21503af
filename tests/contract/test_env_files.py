"""env/*.env keep their promise: same keys in the same order, no secrets, and every reader reads the same text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app import config
from app.models import manifests

FILES = {env: config.ROOT / "env" / f"{env}.env" for env in config.ENVIRONMENTS}
SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
# Sound like secrets, and are a path and a number.
NO_SECRETS = ("TLS_KEY", "RATE_LIMIT_PER_TOKEN")
ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")


def read_literally(path: Path) -> dict[str, str]:
    """Read as `docker run --env-file` does: KEY=the rest of the line, nothing expanded; # begins a comment line."""
    values = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert not re.search(r"\s", name), "docker refuses names with white space, such as `export A`"
            values[name] = value
    return values


def read_with_shell(shell: str, path: Path) -> dict[str, str]:
    """Read as `set -a; . file` does, from an environment that holds nothing else."""
    command = [shutil.which(shell) or shell] + (["sh"] if shell == "busybox" else [])
    printing = "\n".join(f"printf '%s=%s\\n' {name} \"${name}\"" for name in keys(path))
    script = f"set -aeu\n. '{path}'\n{printing}"
    out = subprocess.run([*command, "-c", script], env={}, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in out.stdout.splitlines())


def keys(path: Path) -> list[str]:
    return [match[1] for line in path.read_text().splitlines() if (match := ASSIGNMENT.match(line))]


def comments(path: Path) -> dict[str, str]:
    """The line above each key."""
    lines = path.read_text().splitlines()
    return {match[1]: lines[at - 1] for at, line in enumerate(lines) if (match := ASSIGNMENT.match(line))}


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest) -> Path:
    return FILES[request.param]


def test_keys_and_their_order_are_the_same_in_every_file() -> None:
    first, *others = (keys(path) for path in FILES.values())

    assert first
    assert all(other == first for other in others)


def test_comments_are_the_same_in_every_file_and_stand_above_each_key() -> None:
    first, *others = (comments(path) for path in FILES.values())

    assert all(comment.startswith("# ") for comment in first.values())
    assert all(other == first for other in others)


def test_keys_stand_in_the_order_of_their_declarations(path: Path) -> None:
    declared = [field.upper() for field in config.DECLARATIONS]

    assert sorted(keys(path), key=declared.index) == keys(path)


def test_each_line_is_a_comment_blank_or_plain(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert line == "" or line.startswith("# ") or config.PLAIN_LINE.fullmatch(line), line
    assert b"\r" not in path.read_bytes()


def test_env_in_a_file_is_the_files_own_name(path: Path) -> None:
    assert read_literally(path)["ENV"] == path.stem


def test_no_file_holds_a_secret(path: Path) -> None:
    named = {one.name for one in config.SECRETS} | {f"{one.name}_FILE" for one in config.SECRETS}

    assert not named & set(keys(path))
    assert not [name for name in keys(path) if config.SECRET_SOUNDING.search(name) and name not in NO_SECRETS]


@pytest.mark.parametrize("interpolate", [True, False])
def test_python_dotenv_reads_what_stands_there(path: Path, interpolate: bool) -> None:
    assert dotenv_values(path, interpolate=interpolate) == read_literally(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_shell_reads_what_stands_there(path: Path, shell: str) -> None:
    assert read_with_shell(shell, path) == read_literally(path)


def test_config_reads_what_stands_there(path: Path) -> None:
    layer = config.read_env_file(config.ROOT, f"env/{path.name}")

    literal = {name.lower(): value for name, value in read_literally(path).items() if value and name != "ENV"}
    assert {field: reading.value for field, reading in layer.items()} == literal


def test_line_of_each_value_is_where_it_stands(path: Path) -> None:
    lines = path.read_text().splitlines()

    for field, reading in config.read_env_file(config.ROOT, f"env/{path.name}").items():
        line = int(reading.source.removeprefix(f"env/{path.name}:"))
        assert lines[line - 1] == f"{field.upper()}={reading.value}"


def test_the_shell_tests_could_fail(tmp_path: Path) -> None:
    quoted = tmp_path / "quoted.env"
    quoted.write_text("A='1'\n")

    assert read_literally(quoted) == {"A": "'1'"}
    assert read_with_shell("sh", quoted) == {"A": "1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with our files and nobody's local.env."""
    shutil.copytree(config.ROOT / "env", tmp_path / "env", ignore=shutil.ignore_patterns("local.env"))
    return tmp_path


@pytest.mark.parametrize("env", FILES)
def test_values_are_right_and_fit_together(env: str, root: Path) -> None:
    environ = {"ENV": env, "SECRET_KEY": "q7Wm2xN9vRk4Ls8Tz1Bd", "STATE_DIR": "/var/lib/cask"}

    assert config.load(environ, root, root / "no-secrets").env == env


@pytest.mark.parametrize("env", FILES)
def test_a_file_that_was_read_into_the_environment_means_the_same(env: str, root: Path) -> None:
    """As `set -a; . env/prod.env` and `docker run --env-file` do."""
    passed = config.resolve(read_literally(FILES[env]), root, root / "no-secrets")

    described = config.describe(env, root)
    assert all(passed.text(field) == described.text(field) for field in config.DECLARATIONS if field != "secret_key")


def test_grammar_of_values_is_read_alike_character_by_character(tmp_path: Path) -> None:
    allowed = [c for c in map(chr, range(33, 127)) if config.PLAIN_LINE.fullmatch(f"A={c}")]
    path = tmp_path / "every.env"
    path.write_text("".join(f"A{at}={c}\nB{at}=x{c}y\n" for at, c in enumerate(allowed)))

    literal = read_literally(path)

    assert len(allowed) > 70
    assert dotenv_values(path) == literal
    assert all(read_with_shell(shell, path) == literal for shell in SHELLS)


def test_prod_helps_no_developer_and_is_loaded_only_after_asking() -> None:
    prod = config.describe("prod")

    assert (prod.debug, prod.reload, prod.log_format, prod.loadtest_allow) == (False, False, "json", "confirm")
    assert prod.hsts_seconds == 31536000


def test_local_file_is_ignored_by_git_and_the_others_are_not() -> None:
    lines = (config.ROOT / ".gitignore").read_text().splitlines()

    assert "/env/local.env" in lines
    assert not {"env", "env/", "/env/", "*.env", ".env"} & set(lines)


def test_models_are_named_as_in_manifests() -> None:
    name = manifests.NAME_PATTERN.pattern

    assert config.MODEL_NAME.pattern == f"{name}(@{name})?"
