"""What was built from a model: files of other runtimes, how fast and faithful each is, and which one serves. A leaf.

A report and its files lie in ``<STATE_DIR>/built/<digest>/``, made by ``app.runtimes.build``. A model may bring a build
of its own, read only, in ``built/`` beside its manifest; those of the container image do. A report counts only for the
same model digest, library versions and processor.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app import config
from app.models.manifests import Manifest
from app.storage import file_locks, files, json_files
from app.texts import Text

REPORT_FILE = "report.json"
PROGRESS_FILE = "progress.json"
LOCK_FILE = "lock"
FOLDER = "built"
# Which libraries the files of a runtime depend on; eager torch has no files.
LIBRARIES = {"openvino": "openvino", "aotinductor": "torch"}
# Instructions that decide which precision is fast (proc(5), /proc/cpuinfo).
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# Eager fp32: what all others are compared with, and what serves where nothing was built.
REFERENCE = ("torch", "fp32")
# The same of a model that was added as a whole network, see ``reference``.
NETWORK_REFERENCE = ("openvino", "fp32")
# Reports that stay parsed, some ten KiB each.
MOST_PARSED = 64
# With fewer pictures an agreement of 99.5 % means nothing, and int8 has too little to learn its ranges from.
LEAST_IMAGES = 50


@dataclass(frozen=True)
class Candidate:
    """One way to compute a model, measured.

    ``images_per_second``: for a second of one core, on a GPU of the clock, at the best of the measured batch sizes.
    ``agreement``: share of images with the same best label (classifier), or of the reference's boxes that are found
    again (detector), against eager fp32. ``largest_difference``: of any score. ``map_loss``: mean average precision
    lost, detectors only; ``map_50``: mean average precision against the true boxes, where they are known.
    ``build_seconds``: to make it, load it and compare it. ``is_shipped``: its file lies with the model, not in
    STATE_DIR.
    """

    runtime: str
    precision: str
    file: str = ""
    sha256: str = ""
    images_per_second: float = 0.0
    best_batch_size: int = 1
    agreement: float = 1.0
    largest_difference: float = 0.0
    map_loss: float = 0.0
    map_50: float | None = None
    build_seconds: float = 0.0
    is_shipped: bool = False
    is_faithful: bool = True
    is_chosen: bool = False
    verdict: str = ""

    @property
    def name(self) -> str:
        """``openvino int8``, the way tables write it."""
        return f"{self.runtime} {self.precision}"

    @property
    def is_measured(self) -> bool:
        """Whether it could be computed at all; else ``verdict`` says why not."""
        return self.images_per_second > 0


@dataclass(frozen=True)
class Report:
    """All candidates of one model on one kind of processor, and what was compared.

    ``images``: that were compared; ``calibration_images``: others, from which int8 learned its ranges. ``truth``: what
    mAP was measured against, ``objects`` (the true boxes), ``reference`` (eager fp32's), or nothing for classifiers.
    ``device``: ``cpu``, or the GPU that ``processor`` names, such as ``cuda:0``. ``folder``: where it lies.
    """

    model: str
    digest: str
    processor: str
    versions: dict[str, str]
    images: int
    candidates: tuple[Candidate, ...]
    calibration_images: int = 0
    truth: str = ""
    built_at: str = ""
    build_seconds: float = 0.0
    device: str = "cpu"
    folder: Path = field(default=Path(), compare=False)

    @property
    def chosen(self) -> Candidate:
        """The candidate that serves; the reference when none was marked."""
        return next((each for each in self.candidates if each.is_chosen), self.candidates[0])

    def fits(self, on: str = "") -> bool:
        """Whether its timings hold here: same libraries, and ``on`` names what computes; empty is this processor."""
        return self.processor == (on or processor()) and self.versions == versions()

    def path(self, candidate: Candidate, manifest: Manifest) -> Path:
        """Where the file of a candidate lies; one without a file is computed from the model's own."""
        if not candidate.file:
            return manifest.weights_path
        return (shipped_folder(manifest) if candidate.is_shipped else self.folder) / candidate.file

    def golden_path(self, candidate: Candidate) -> Path:
        """Where the stored answers of a candidate lie, beside the report."""
        return self.folder / f"{candidate.runtime}-{candidate.precision}.golden.safetensors"


def reference(manifest: Manifest) -> tuple[str, str]:
    """Runtime and precision that serve where nothing was built, and that others are compared with."""
    return NETWORK_REFERENCE if manifest.is_network else REFERENCE


def folder(state_dir: Path, manifest: Manifest) -> Path:
    """Where a model's built files lie."""
    return state_dir / FOLDER / manifest.digest.removeprefix("sha256:")[:16]


def shipped_folder(manifest: Manifest) -> Path:
    """Where a model's own build lies, which it may bring; read only."""
    return manifest.directory / FOLDER


def digest(path: Path) -> str:
    """SHA-256 over a file, for ``.xml`` with the weights beside it (``.bin``), in hexadecimal. Raises OSError."""
    together = hashlib.sha256()
    for each in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        together.update(files.read(each, files.most_weights()))
    return together.hexdigest()


def read(state_dir: Path, manifest: Manifest, on: str = "") -> Report | None:
    """The report for this model on what computes here, see ``Report.fits``; None when there is none that fits."""
    return next((each for each in read_all(state_dir, manifest) if each.fits(on)), None)


def read_all(state_dir: Path, manifest: Manifest) -> list[Report]:
    """Every report for this model, whichever machine it is for: the one made here first, then the shipped one."""
    found = (_read(place, manifest) for place in (folder(state_dir, manifest), shipped_folder(manifest)))
    return [each for each in found if each is not None]


def _read(place: Path, manifest: Manifest) -> Report | None:
    path = place / REPORT_FILE
    try:
        found = path.stat()
        report = _parsed(path, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return report if report.digest == manifest.digest and report.candidates else None


@functools.lru_cache(maxsize=MOST_PARSED)
def _parsed(path: Path, _file: tuple[int, ...]) -> Report:
    """What this file says: reports are replaced whole, and callers ask for each model's again and again."""
    table = json.loads(files.read(path, files.TEXT_BYTES))
    candidates = tuple(Candidate(**row) for row in table.pop("candidates"))
    return Report(**{**table, "candidates": candidates, "folder": path.parent})


def write(place: Path, report: Report) -> Path:
    """Write the report into this folder, whole or not at all. Raises OSError."""
    table = asdict(report)
    del table["folder"]
    return _write(place / REPORT_FILE, table)


def _write(path: Path, table: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.replace(path, table, indent=2)
    return path


def versions() -> dict[str, str]:
    """The versions of the libraries that built files depend on; a library that is not installed has none."""
    found = {name: _version(name) for name in sorted(set(LIBRARIES.values()))}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(library: str) -> str | None:
    # importlib.metadata, with email and zipfile, would cost the engine 2 MB, for what a folder is named after.
    for folder in sys.path:
        for found in Path(folder).glob(f"{library}-*.dist-info"):
            return found.name.removeprefix(f"{library}-").removesuffix(".dist-info")
    return None


def is_usable_here(report: Report, candidate: Candidate) -> bool:
    """Whether a candidate's file can be read by the libraries here, whatever machine it was timed on."""
    library = LIBRARIES.get(candidate.runtime)
    # Machine code was compiled for one processor; OpenVINO's files suit any.
    if library is None or (candidate.runtime == "aotinductor" and report.processor != processor()):
        return False
    return bool(candidate.sha256) and library in versions() and versions()[library] == report.versions.get(library)


def portable(report: Report) -> list[Candidate]:
    """What OpenVINO computes on any processor from files that can be read here: the chosen first, then the fastest.

    Not bf16, which crashes where a processor lacks its instructions.
    """
    found = [
        each
        for each in report.candidates
        if each.runtime == "openvino"
        and each.precision in ("fp32", "int8")
        and each.is_measured
        and (each.is_faithful or each.is_chosen)
        and is_usable_here(report, each)
    ]
    return sorted(found, key=lambda each: (each.is_chosen, each.images_per_second), reverse=True)


def processor() -> str:
    """A name for this kind of processor: model, the instructions that matter, and what was switched off of them."""
    text = _cpuinfo()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = set(re.findall(r"^flags\s*:\s*(.+)$", text, re.M)[:1][0].split()) if "flags" in text else set()
    known = " ".join(flag for flag in CPU_FLAGS if flag in flags)
    limits = "".join(f", {name}={value}" for name, value in config.processor_limits().items())
    return f"{model[1].strip() if model else 'unknown'} [{known}]{limits}"


def choose(
    candidates: Sequence[Candidate],
    *,
    agreement: float,
    map_loss: float,
    requested: str = "",
    images: int = LEAST_IMAGES,
) -> list[Candidate]:
    """Mark the fastest candidate within the tolerance, or the ``requested`` one, and say of each other why not.

    The first candidate is the reference; it is within any tolerance. ``requested`` is a candidate's name. ``images``:
    how many were compared.
    """
    judged = [(each, _fault(each, agreement, map_loss)) for each in candidates]
    fitting = [
        each for each, fault in judged if (each.name == requested and each.is_measured) or not (requested or fault)
    ]
    best = max(fitting, key=lambda each: each.images_per_second, default=candidates[0])
    return [_verdict(each, fault, best, images) for each, fault in judged]


def _fault(candidate: Candidate, agreement: float, map_loss: float) -> str:
    if candidate.verdict:
        return candidate.verdict
    if candidate.agreement < agreement:
        return f"agrees in {candidate.agreement:.2%}, at least {agreement:.2%} is needed"
    if candidate.map_loss > map_loss:
        return f"loses {candidate.map_loss * 100:.2f} points of mAP, at most {map_loss * 100:.2f} are allowed"
    return ""


def _verdict(candidate: Candidate, fault: str, best: Candidate, images: int) -> Candidate:
    is_chosen = candidate is best
    words = _chosen_words(images) if is_chosen else fault or f"slower than {best.name}"
    return replace(candidate, is_chosen=is_chosen, is_faithful=not fault, verdict=words)


def _chosen_words(images: int) -> str:
    """An agreement on few images says little, and must not look like more."""
    if images >= LEAST_IMAGES:
        return "chosen"
    return f"chosen on {images} image{'s' if images != 1 else ''}; give at least {LEAST_IMAGES} samples"


# ── a build that runs ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Progress:
    """How a build of one model goes. ``state``: running, done, failed; ``step``: what it is at, in words."""

    state: str
    step: str = ""
    error: str = ""


def write_progress(place: Path, progress: Progress) -> None:
    """Say how the build into this folder goes. Raises OSError."""
    _write(place / PROGRESS_FILE, asdict(progress))


def read_progress(state_dir: Path, manifest: Manifest) -> Progress | None:
    """How the last build of this model goes or went; None when there was none. One that was killed has failed."""
    try:
        found = Progress(**json.loads(files.read(folder(state_dir, manifest) / PROGRESS_FILE, files.TEXT_BYTES)))
    except (OSError, ValueError, TypeError):
        return None
    if found.state == "running" and not is_locked(state_dir):
        return replace(found, state="failed", error=Text("It ended while it was at: %(step)s.", step=found.step))
    return found


@dataclass(frozen=True)
class Standing:
    """What is known of a model's builds.

    ``state``: none, running, failed, current, or elsewhere (the report was made on another processor or with other
    libraries). ``report``: the last one, also while another build runs or when it failed.
    """

    state: str
    report: Report | None = None
    progress: Progress | None = None


def standing(state_dir: Path, manifest: Manifest, on: str = "") -> Standing:
    """How it stands with the builds of a model, on what ``on`` names; empty is this processor."""
    reports = read_all(state_dir, manifest)
    fitting = next((each for each in reports if each.fits(on)), None)
    report = fitting or next(iter(reports), None)
    progress = read_progress(state_dir, manifest)
    if progress and progress.state == "running":
        return Standing("running", report, progress)
    if fitting:
        return Standing("current", fitting)
    if progress and progress.state == "failed":
        return Standing("failed", report, progress)
    return Standing("elsewhere" if report else "none", report)


def lock(state_dir: Path, *, is_waiting: bool = False) -> Any | None:
    """Be the only one who builds, until the returned file is closed; None when somebody else does. Raises OSError."""
    path = state_dir / FOLDER / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = file_locks.take(path, 0o666, is_waiting=is_waiting)
    return None if descriptor is None else os.fdopen(descriptor, "a")


def is_locked(state_dir: Path) -> bool:
    """Whether somebody builds."""
    return file_locks.is_held(state_dir / FOLDER / LOCK_FILE)


@functools.cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
