"""What a run was measured on: code, models, machine, settings. Runs of unlike ones are not compared."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest import guard
from loadtest.guard import Target

# What may differ between two sides of a comparison: it is what one compares.
COMPARED = ("revision", "is_modified", "server_version", "digests", "computed_by", "server")


def take(
    target: Target, root: Path, models: Sequence[Mapping[str, Any]], digests: Mapping[str, str], *, is_cask: bool = True
) -> dict[str, Any]:
    """The fingerprint of this generator, and of the target as far as it tells."""
    return {
        "revision": _git(root, "rev-parse", "--short=12", "HEAD") or _built_revision(root),
        "is_modified": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "server_version": _version(target) if is_cask else "another service",
        "digests": dict(digests),
        "computed_by": {str(model.get("name")): model.get("computed_by") for model in models},
        "generator_cpu": cpu_name(),
        "generator_cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "server": _server(target) if is_cask else {},
    }


def cpu_name() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def of_workers(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The machines that remote workers report, one a worker; empty for workers of this machine."""
    told = sorted(f"{each['cpu']}, {each['cores']} cores" for each in workers if "cpu" in each)
    return {"workers": told} if told else {}


def unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The parts in which two fingerprints differ and must not."""
    keys = sorted((set(a) | set(b)) - set(COMPARED))
    return [f"{key}: {a.get(key)!r} and {b.get(key)!r}" for key in keys if a.get(key) != b.get(key)]


def _version(target: Target) -> str:
    told = guard.told(target, "/version")
    return f"{told['version']} {told['revision']}" if {"version", "revision"} <= told.keys() else "unknown"


def _server(target: Target) -> dict[str, Any]:
    if not (status := guard.told(target, "/status")):
        return {}
    engine = status.get("engine", {})
    return {
        "web_processes": sum(1 for each in status.get("processes", ()) if each.get("role") == "web"),
        "engine_workers": engine.get("workers"),
        "max_queue_size": engine.get("max_queue_size"),
    }


def _built_revision(root: Path) -> str:
    """Of an image, which has no repository."""
    try:
        return str(json.loads((root / "build-info.json").read_text())["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _git(root: Path, *words: str) -> str:
    command = ["git", "-c", f"safe.directory={root}", *words]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
