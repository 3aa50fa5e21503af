"""What was built from a model: files of other runtimes, how fast and how faithful each is, and which one serves.

``<STATE_DIR>/built/<digest>/report.json`` with the files beside it; made by ``build``, read at each start. A report
counts only for the same model digest, library versions and processor. No torch here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.manifests import Manifest

REPORT_FILE = "report.json"
FOLDER = "built"
# Which of its libraries a built file depends on.
LIBRARIES = ("openvino",)
# Instructions that decide which precision is fast (proc(5), /proc/cpuinfo).
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Candidate:
    """One way to compute a model, measured.

    ``images_per_second``: of one thread, at the best of the measured batch sizes. ``agreement``: share of images with
    the same best label (classifier), or of the reference's boxes that are found again (detector), against eager fp32.
    ``largest_difference``: of any score. ``map_loss``: mean average precision lost, detectors only.
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
    is_chosen: bool = False
    verdict: str = ""

    @property
    def name(self) -> str:
        """``openvino int8``, the way tables write it."""
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True)
class Report:
    """All candidates of one model on one kind of processor, and what was compared."""

    model: str
    digest: str
    processor: str
    versions: dict[str, str]
    images: int
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The candidate that serves; the reference when none was marked."""
        return next((each for each in self.candidates if each.is_chosen), self.candidates[0])


def folder(state_dir: Path, manifest: Manifest) -> Path:
    """Where a model's built files lie."""
    return state_dir / FOLDER / manifest.digest.removeprefix("sha256:")[:16]


def golden_path(path: Path, candidate: Candidate) -> Path:
    """Where the stored answers of a built candidate lie, beside its file."""
    return path.with_name(f"{candidate.runtime}-{candidate.precision}.golden.safetensors")


def digest(path: Path) -> str:
    """SHA-256 over a file and the weights beside it (``.xml`` and ``.bin``), in hexadecimal. Raises OSError."""
    together = hashlib.sha256()
    for each in (path, path.with_suffix(".bin")):
        together.update(each.read_bytes())
    return together.hexdigest()


def read(state_dir: Path, manifest: Manifest) -> Report | None:
    """The report for this model on this machine; None when there is none, or it is for other versions or hardware."""
    try:
        table = json.loads((folder(state_dir, manifest) / REPORT_FILE).read_text())
        candidates = tuple(Candidate(**row) for row in table.pop("candidates"))
        report = Report(**table, candidates=candidates)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_same = (manifest.digest, processor(), versions()) == (report.digest, report.processor, report.versions)
    return report if is_same and report.candidates else None


def write(state_dir: Path, manifest: Manifest, report: Report) -> Path:
    """Write the report whole or not at all. Raises OSError."""
    path = folder(state_dir, manifest) / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False) as file:
        json.dump(asdict(report), file, indent=2)
        Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path


def versions() -> dict[str, str]:
    """The versions of the libraries that built files depend on; a library that is not installed has none."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """A name for this kind of processor: model and the instructions that matter, so that timings are not mixed up."""
    text = _cpuinfo()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = set(re.findall(r"^flags\s*:\s*(.+)$", text, re.M)[:1][0].split()) if "flags" in text else set()
    known = " ".join(flag for flag in CPU_FLAGS if flag in flags)
    return f"{model[1].strip() if model else 'unknown'} [{known}]"


def choose(candidates: Sequence[Candidate], *, agreement: float, map_loss: float, wished: str = "") -> list[Candidate]:
    """Mark the fastest candidate within the tolerance, or the ``wished`` one, and say of each other why not.

    The first candidate is the reference; it is within any tolerance. ``wished`` is a candidate's name.
    """
    judged = [(each, _fault(each, agreement, map_loss)) for each in candidates]
    fitting = [each for each, fault in judged if not fault and (not wished or each.name == wished)]
    best = max(fitting, key=lambda each: each.images_per_second, default=candidates[0])
    return [_verdict(each, fault, best) for each, fault in judged]


def _fault(candidate: Candidate, agreement: float, map_loss: float) -> str:
    if candidate.verdict:
        return candidate.verdict
    if candidate.agreement < agreement:
        return f"agrees in {candidate.agreement:.2%}, at least {agreement:.2%} is needed"
    if candidate.map_loss > map_loss:
        return f"loses {candidate.map_loss * 100:.2f} points of mAP, at most {map_loss * 100:.2f} are allowed"
    return ""


def _verdict(candidate: Candidate, fault: str, best: Candidate) -> Candidate:
    is_chosen = candidate is best
    words = "chosen" if is_chosen else fault or f"slower than {best.name}"
    return Candidate(**{**asdict(candidate), "is_chosen": is_chosen, "verdict": words})


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
