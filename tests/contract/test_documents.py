"""What the documents name exists: files, links, commands, settings, error codes, options, dependencies."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app import config, errors, tasks
from app.errors import CaskError
from app.inference import options
from app.models import manifests
from app.tasks.base import Task
from app.web.api import bodies, rpc, tensors
from app.web.middleware import error_handlers, trusted_hosts

ROOT = config.ROOT
# configuration.md is generated and has a test of its own.
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
    if path.exists() and path.name != "configuration.md"
)
each_document = pytest.mark.parametrize("document", DOCUMENTS)

FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.M)
RULE = re.compile(r"^([a-z][a-z-]*):(.*)$", re.M)
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
ASSIGNED = re.compile(r"(?<![\w<$-])([A-Z][A-Z0-9_]{2,})=")
PROBLEM_CODE = re.compile(r'urn:cask:problem:(\w+)|"code": ?"(\w+)"')
FILE = re.compile(r".*(\.(conf|css|env|html|in|jpg|js|json|md|png|py|sh|svg|toml|txt|wsgi|yaml)|Dockerfile|Makefile)")

# Where a short name may lie: tables name the files of one folder.
FOLDERS = (
    *("", "app", "app/engine", "apache", "apache/conf", "docker", "docs", "env", "requirements", "models", "tests"),
    "loadtest",
)
LONGEST_LINE = 300
# Made at run time, by another program, or by the reader.
NOT_OURS = re.compile(
    r"^(/|\.\.?/|~|https?:|…|<|\$|run/|var/|build/|secrets/|\.venv|env/local\.env|"
    r"local\.env|(cert|key)\.pem|httpd\.conf|"
    r"loadtest/results|(verdict|junit|capacity|reference|run)\.(json|xml)|report\.html|locust\.log|rows-0|examples-0|server\.jsonl|"
    r"(STATE_DIR/)?(roles|schema)\.json|\.|application/|image/|multipart/|name@)"
)
# Upper-case words in code that are no settings: kernel, Apache, make and compose know them.
OTHER_WORDS = {"AF_UNIX", "DOCKER_HOST", "SOCK_STREAM", "SO_PEERCRED", "STOPSIGNAL", "NAME_FILE"}
OPERATORS_ONLY = {
    *(
        "change_refused",
        "golden_check_failed",
        "manifest_invalid",
        "model_load_failed",
        "plugin_broken",
        "roles_invalid",
    ),
    *("settings_invalid", "backup_refused", "token_refused", "unavailable"),
}


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def code_of(document: str) -> list[str]:
    """Everything set as code: fenced blocks and spans."""
    text = text_of(document)
    return FENCE.findall(text) + SPAN.findall(FENCE.sub("", text))


def spans_of(document: str) -> list[str]:
    return SPAN.findall(FENCE.sub("", text_of(document)))


@cache
def tracked() -> list[str]:
    """Every file that git knows."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


# ── Files and links ──────────────────────────────────────────────────────────────────────────────────────────────────


@each_document
def test_a_named_file_exists(document: str) -> None:
    named = {span.split(":")[0].rstrip("/") for span in spans_of(document) if _is_path(span)}

    assert sorted(name for name in named if not _exists(name)) == []


def _is_path(span: str) -> bool:
    if NOT_OURS.match(span) or re.search(r"[\s=(){}|]", span):
        return False
    top = span.split("/")[0]
    return FILE.fullmatch(span) is not None or ("/" in span and (ROOT / top).is_dir())


def _exists(name: str) -> bool:
    if "/" not in name and name in {Path(each).name for each in tracked()}:
        return True
    pattern = re.sub(r"<[^>]+>|…", "*", name)
    return any(next((ROOT / folder).glob(pattern), None) for folder in FOLDERS if (ROOT / folder).is_dir())


@each_document
def test_a_relative_link_leads_somewhere(document: str) -> None:
    broken = [link for link in LINK.findall(text_of(document)) if not _leads_somewhere(document, link)]

    assert broken == []


def _leads_somewhere(document: str, link: str) -> bool:
    if re.match(r"https?:|mailto:", link):
        return True
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not target.exists():
        return False
    return not anchor or anchor in {_slug(heading) for heading in HEADING.findall(target.read_text())}


def _slug(heading: str) -> str:
    """The anchor that GitHub and GitLab make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@each_document
def test_no_document_names_a_path_of_one_machine(document: str) -> None:
    assert str(ROOT) not in text_of(document)
    assert not re.search(r"/(work|tmp)/", text_of(document))


@each_document
def test_no_line_of_prose_is_too_long_to_read_in_a_diff(document: str) -> None:
    prose = FENCE.sub("", text_of(document)).splitlines()

    assert [line[:80] for line in prose if len(line) > LONGEST_LINE and not line.startswith("|")] == []


def test_readme_has_each_folder_in_its_map() -> None:
    folders = {name.split("/")[0] for name in tracked() if "/" in name and not name.startswith(".")}

    named = set(re.findall(r"^\| `([a-z]+)/?`", text_of("README.md"), re.M))

    assert folders <= named


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def targets() -> dict[str, str]:
    """Each target of the Makefile and the rest of its line."""
    return {name: rest for name, rest in RULE.findall(text_of("Makefile")) if name != "export"}


@each_document
def test_a_named_make_target_exists(document: str) -> None:
    named = {name for code in code_of(document) for name in MAKE.findall(code)}

    assert named - set(targets()) == set()


@pytest.mark.parametrize("name", targets())
def test_each_make_target_has_help_and_stands_in_a_document(name: str) -> None:
    words = re.search(r"## (\S.*)", targets()[name])
    assert words, "add `## what it does`"
    assert len(words[1]) <= 59, "`make help` fits 80 columns"
    assert any(f"make {name}" in code for document in DOCUMENTS for code in code_of(document)) or name == "help"


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def known_names() -> set[str]:
    """Settings, files of secrets, and what our scripts and the Makefile take from their caller."""
    known = {one.name for one in config.DECLARATIONS.values()} | {f"{one.name}_FILE" for one in config.SECRETS}
    others = ("Makefile", "docker/smoke.py", "docker/swarm/stack.yml")
    for path in (*ROOT.glob("*/*.sh"), *ROOT.glob("docker/steps/*.sh"), *(ROOT / each for each in others)):
        for groups in re.findall(r"\$\{([A-Z][A-Z0-9_]+):-|\$\(([A-Z]+)\)", path.read_text()):
            known |= {group for group in groups if group}
    known |= set(re.findall(r"[A-Z]+", re.findall(r"^GIVEN := (.*)$", text_of("Makefile"), re.M)[0]))
    return known | OTHER_WORDS | set(config.PROCESSOR_SWITCHES) | {"PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"}


@each_document
def test_a_named_setting_exists(document: str) -> None:
    # A report of what goes wrong may show a wrong name.
    text = "\n".join(code for code in code_of(document) if "no such setting" not in code)
    named = set(ASSIGNED.findall(text))
    named |= {span for span in spans_of(document) if re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]", span)}

    assert sorted(name for name in named if not _is_known(name)) == []


def _is_known(name: str) -> bool:
    # Apache's, mod_wsgi's and other programs' own words for their log lines, such as AH01909.
    foreign = config.FOREIGN_NAMES.fullmatch(name) or re.fullmatch(r"(AH|WSGI)\d+", name)
    return name in known_names() or foreign is not None


# ── Error codes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _subclasses(kind: type[CaskError]) -> set[type[CaskError]]:
    return {kind}.union(*(_subclasses(each) for each in kind.__subclasses__()))


def known_codes() -> set[str]:
    """Every code that the app or Apache may answer or log."""
    assert errors and bodies and trusted_hosts and rpc and tensors  # their classes are found by being imported
    ours = {kind.code for kind in _subclasses(CaskError) if kind.__module__.startswith("app.")}
    apache = tomllib.loads(text_of("apache/errors.toml"))
    return ours | {row[0] for row in error_handlers.HTTP_FAILURES.values()} | {row["code"] for row in apache.values()}


@each_document
def test_a_named_error_code_exists(document: str) -> None:
    named = {code for pair in PROBLEM_CODE.findall(text_of(document)) for code in pair if code}
    named |= set(re.findall(r"^\| \d{3}[\d, ]* (?:\|)? ?`(\w+)`", text_of(document), re.M))

    assert named - known_codes() == set()


def test_api_document_names_each_code_a_caller_may_meet() -> None:
    spans = set(spans_of("docs/api.md"))

    assert known_codes() - OPERATORS_ONLY - spans == set()


# ── Options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _numeric_options() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for params in options.PARAMS_OF_TASK.values():
        for name, schema in params.model_json_schema()["properties"].items():
            found[name] = next((each for each in schema["anyOf"] if "maximum" in each), {})
    return found


@pytest.mark.parametrize("task", tasks.ALL, ids=tasks.OFFERED)
def test_api_document_has_each_tensor_of_a_task(task: Task) -> None:
    for tensor in task.tensors:
        sides = rf"images(?: × [^|×]+){{{len(tensor['shape']) - 1}}}"
        row = rf"^\| `{tensor['name']}` out \| {tensor['datatype']} \| {sides} \|"
        assert re.search(row, text_of("docs/api.md"), re.M), tensor


@pytest.mark.parametrize(("name", "bounds"), _numeric_options().items())
def test_api_document_has_each_option_with_its_range(name: str, bounds: dict[str, Any]) -> None:
    row = re.search(rf"^\| `{name}` \| [^|]+ \| ([^|]+) \|", text_of("docs/api.md"), re.M)

    assert row is not None
    if bounds:
        lowest, highest = row[1].replace("\u202f", "").replace(" ", "").split(",")[0].split("…")
        assert (float(lowest), float(highest)) == (bounds["minimum"], bounds["maximum"])


def test_api_document_tells_the_demonstrations_own_threshold() -> None:
    detector = next(each for each in manifests.find(ROOT / "models") if each.task == "detect" and each.demonstration)

    assert f"from the model, {detector.serve.score_threshold:g} here" in text_of("docs/api.md")


# ── Dependencies ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.in")), ids=lambda path: path.name)
def test_each_direct_dependency_has_its_reason(path: Path) -> None:
    named = {re.split(r"[=~<>\[ ;]", line)[0] for line in path.read_text().splitlines() if line and line[0] != "#"}

    reasons = set(re.findall(r"^\| `([a-z0-9_-]+)` \| \S", text_of("docs/decisions/0006-dependencies.md"), re.M))

    assert named - reasons == set()


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("0*.md"))]

    assert sorted(set(numbers)) == numbers
