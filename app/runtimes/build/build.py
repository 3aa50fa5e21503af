"""Build a model before it is served: ``flask model build``, which is ``make model-build``.

Makes each candidate, compares it with eager fp32 on the model's sample images, times all of them in turn on what
DEVICE names with one thread, and marks the fastest within the tolerance. Each is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import config, tasks
from app.errors import CaskError, ModelLoadError
from app.host.machine import CPU
from app.models import builds, manifests
from app.models.builds import Candidate, Progress, Report
from app.models.manifests import CODE, TENSOR, Manifest
from app.runtimes import devices, registry
from app.runtimes.build import background, conversion, samples
from app.runtimes.build.agreement import Agreement
from app.runtimes.build.samples import Samples
from app.runtimes.build.trial import TrialError, Trials, work_folder


def _candidates(precisions: Mapping[str, Sequence[str]]) -> tuple[Candidate, ...]:
    pairs = ((runtime, precision) for runtime, known in precisions.items() for precision in known)
    return tuple(Candidate(*pair, is_faithful=False) for pair in pairs)


_OF_FILES = {"aotinductor": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8")}
_OF_TORCH = dict.fromkeys(("torch-channels-last", "torch-fused"), ("fp32", "bf16"))
CANDIDATES = _candidates({"torch": ("fp32",), **_OF_TORCH, **_OF_FILES})
# fp16 is for GPUs: processors without its instructions compute it many times slower than fp32.
_ON_GPUS = dict.fromkeys((*_OF_TORCH, "torch-graphs"), ("fp32", "fp16", "bf16"))
GPU_CANDIDATES = _candidates({"torch": ("fp32",), **_ON_GPUS, **_OF_FILES})
BATCH_SIZES = (1, 4, 8)
GPU_BATCH_SIZES = (8, 16, 32, 64)
# Short rounds in turn, the best of each: a disturbed moment then hits one round of some, not all of one.
ROUNDS = 4
ROUND_SECONDS = 0.2
# A step of one candidate that takes longer is given up. A build of least priority may be kept waiting for long.
LIMIT_SECONDS = 600.0
BACKGROUND_LIMIT_SECONDS = 4 * 3600.0

TRUTHS = {"": "", "objects": "; mAP against the true boxes", "reference": "; mAP against the reference's boxes"}


Say = Callable[[str], None]
Advance = Callable[[], None]


@dataclass(frozen=True)
class BuildOptions:
    """How to build. ``use`` names a candidate (``openvino fp32``) that is to serve however fast it is.

    ``only``: names of the candidates that are tried besides the reference; empty is all. ``is_reusing``: files whose
    library versions fit are taken as they are. ``rounds``: of timing. ``device``: ``cpu`` or ``cuda:<n>``.
    """

    use: str = ""
    only: tuple[str, ...] = ()
    is_reusing: bool = False
    limit_seconds: float = LIMIT_SECONDS
    rounds: int = ROUNDS
    device: str = CPU


def _nothing() -> None:
    """For those who count no steps."""


def steps(build_options: BuildOptions) -> int:
    """How many steps the build of one model has: each candidate that is tried, and each round of timing."""
    return len(_planned(build_options)) + build_options.rounds


def _planned(build_options: BuildOptions) -> list[Candidate]:
    return [
        each
        for each in (CANDIDATES if build_options.device == CPU else GPU_CANDIDATES)
        if (each.runtime, each.precision) == builds.REFERENCE
        or not build_options.only
        or each.name in build_options.only
    ]


def build_model(
    manifest: Manifest,
    state_dir: Path,
    build_options: BuildOptions | None = None,
    progress: Say = print,
    advance: Advance = _nothing,
    *,
    is_shipped: bool = False,
) -> Report:
    """Make, compare and time all candidates, write and return the report. ``advance`` is called after each step.

    ``is_shipped``: into the model's own folder, so that it brings its build wherever it is copied; else ``state_dir``.
    Raises ModelLoadError when the model itself cannot be computed; a candidate that fails is a row that says why.
    """
    place = builds.shipped_folder(manifest) if is_shipped else builds.folder(state_dir, manifest)
    return _Build(manifest, place, state_dir, build_options or BuildOptions(), progress, advance).run()


def table(report: Report) -> str:
    """The report as text, for a person."""
    head: tuple[str, ...] = ("candidate", "images/s", "agreement", "largest difference", "mAP loss", "mAP@0.5")
    # Classifiers have no mAP.
    columns = len(head) if report.truth else len(head) - 2
    head = (*head[:columns], "verdict")
    rows = [(*_row(each)[:columns], each.verdict) for each in report.candidates]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    compared = f"{report.images} samples compared, {report.calibration_images} others for calibration"
    how = "one thread" if report.device == CPU else report.device
    return "\n".join(
        [
            f"{report.model} on {report.processor}",
            f"{how}; {compared}{TRUTHS[report.truth]}; built {report.built_at} in {report.build_seconds:.0f} s",
            *lines,
        ]
    )


def _row(each: Candidate) -> tuple[str, ...]:
    if not each.is_measured:
        return (each.name, *"-----")
    return (
        each.name,
        f"{each.images_per_second:.1f}",
        f"{each.agreement:.2%}",
        f"{each.largest_difference:.4f}",
        f"{each.map_loss * 100:.2f}",
        "-" if each.map_50 is None else f"{each.map_50:.3f}",
    )


# ── one build ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Build:
    """One model's build into one folder."""

    manifest: Manifest
    place: Path
    state_dir: Path
    build_options: BuildOptions
    progress: Say
    advance: Advance = _nothing
    samples: Samples = field(init=False)
    expected: Any = None
    began: float = field(default_factory=time.monotonic)
    # File name before and after it was named by its content, with its digest.
    made: dict[str, tuple[str, str]] = field(default_factory=dict)

    def run(self) -> Report:
        before = builds.read_all(self.state_dir, self.manifest)
        self.samples = samples.read(self.manifest)
        self._say(f"{self.manifest.key}: {len(self.samples.comparison)} samples to compare")
        with (
            Trials(self.manifest, self.build_options.limit_seconds, self.build_options.device) as trials,
            work_folder(self.place) as work,
        ):
            rows = [self._tried(each, trials, Path(work), before) for each in self._planned()]
            if rows[0].verdict:
                raise ModelLoadError(f"{self.manifest.key} cannot be computed by {rows[0].runtime}: {rows[0].verdict}")
            self._prove(rows[0], trials)
            rows = self._choose(self._timed(rows, trials))
            self._write_golden(rows, trials)
        report = self._report(rows)
        builds.write(self.place, report)
        self._clean([report, *before])
        return report

    def _planned(self) -> list[Candidate]:
        """What is tried; of a whole network only what OpenVINO makes of it, whose fp32 is the reference."""
        planned = _planned(self.build_options)
        if not self.manifest.is_network:
            return planned
        others = [each for each in planned if each.runtime == "openvino" and each.precision != "fp32"]
        return [Candidate(*builds.NETWORK_REFERENCE, is_faithful=False), *others]

    def _prove(self, reference: Candidate, trials: Trials) -> None:
        """What all others are compared with must be right itself."""
        try:
            for line in trials.of(reference).ask("prove", reference):
                self._say(line)
        except TrialError as error:
            raise ModelLoadError(f"{self.manifest.key} is not built: {error}", hint="Mend the version first.") from None

    def _say(self, words: str) -> None:
        self.progress(f"[{time.monotonic() - self.began:5.1f} s] {words}")

    # ── made and compared ─────────────────────────────────────────────────────────────────────────────────────────

    def _tried(self, candidate: Candidate, trials: Trials, work: Path, before: Sequence[Report]) -> Candidate:
        """The candidate with its file and its agreement, or with a verdict that says why it cannot be."""
        try:
            return self._try(candidate, trials, work, before)
        finally:
            self.advance()

    def _try(self, candidate: Candidate, trials: Trials, work: Path, before: Sequence[Report]) -> Candidate:
        began = time.monotonic()
        reused = self._reused(candidate, before)
        why_not = conversion.obstacle(
            candidate,
            self.manifest,
            self.samples,
            is_dense=self.manifest.is_network or self.model_class.is_dense(self.manifest.architecture),
            has_file=reused is not None,
            device=self.build_options.device,
        )
        if why_not:
            self._say(f"{candidate.name}: left out: {why_not}")
            return replace(candidate, verdict=f"left out: {why_not}")
        try:
            candidate = reused or self._made(candidate, trials, work)
            trial = trials.of(candidate)
            trial.ask("load", candidate, path=str(self._path(candidate)))
            compared = self._compare(trial.ask("outcome", candidate))
        except (TrialError, OSError) as error:
            words = str(error).splitlines()[0][:160]
            self._say(f"{candidate.name}: failed: {words}")
            return replace(candidate, verdict=f"failed: {words}")
        passed = time.monotonic() - began
        self._say(f"{candidate.name}: agreement {compared.agreement:.2%}, after {passed:.1f} s")
        return replace(candidate, **vars(compared), build_seconds=round(passed, 1))

    @property
    def model_class(self) -> Any:
        """What computes the model: of its task, or of arrays."""
        return registry.model_class(self.manifest)

    def _reused(self, candidate: Candidate, before: Sequence[Report]) -> Candidate | None:
        """The candidate with a file that an earlier build made."""
        for report in before if self.build_options.is_reusing else ():
            for each in report.candidates:
                path = report.path(each, self.manifest)
                if each.name == candidate.name and builds.is_usable_here(report, each) and path.exists():
                    is_shipped = path.parent == builds.shipped_folder(self.manifest) != self.place
                    return replace(candidate, file=each.file, sha256=each.sha256, is_shipped=is_shipped)
        return None

    def _made(self, candidate: Candidate, trials: Trials, work: Path) -> Candidate:
        name = conversion.file_name(candidate, self.manifest)
        if not name:
            return candidate
        if name not in self.made:
            trials.once("make", candidate, folder=str(work))
            self.made[name] = self._moved(work / name)
        file, sha256 = self.made[name]
        return replace(candidate, file=file, sha256=sha256)

    def _moved(self, path: Path) -> tuple[str, str]:
        """Move a file into place under a name that says its content: an engine may be reading its predecessor."""
        sha256 = builds.digest(path)
        target = self.place / f"{path.stem}-{sha256[:12]}{path.suffix}"
        for each in (path.with_suffix(".bin"), path):
            if each.exists():
                each.chmod(0o644)
                each.replace(target.with_suffix(each.suffix))
        return target.name, sha256

    def _path(self, candidate: Candidate) -> Path:
        if not candidate.file:
            return self.manifest.weights_path
        return (builds.shipped_folder(self.manifest) if candidate.is_shipped else self.place) / candidate.file

    def _compare(self, outcome: list[Any]) -> Agreement:
        self.expected = outcome if self.expected is None else self.expected
        return self.model_class.compared(self.expected, outcome, self.manifest, self.samples.truth)

    # ── timed and chosen ──────────────────────────────────────────────────────────────────────────────────────────

    def _timed(self, rows: list[Candidate], trials: Trials) -> list[Candidate]:
        """Images a second of each, at its best batch size; all in turn, some rounds."""
        sizes = self._batch_sizes()
        for number in range(self.build_options.rounds):
            rows = [self._timed_once(each, sizes, trials) for each in rows]
            self._say(f"timed, round {number + 1} of {self.build_options.rounds}")
            self.advance()
        return rows

    def _batch_sizes(self) -> list[int]:
        served = self.manifest.serve
        if self.build_options.device == CPU:
            return [size for size in BATCH_SIZES if size <= served.max_batch_size] or [1]
        return [size for size in GPU_BATCH_SIZES if size <= served.max_gpu_batch_size] or [served.max_gpu_batch_size]

    def _timed_once(self, candidate: Candidate, sizes: Sequence[int], trials: Trials) -> Candidate:
        if candidate.verdict:
            return candidate
        for size in sizes:
            try:
                rate = trials.of(candidate).ask("rate", candidate, size=size, seconds=ROUND_SECONDS)
            except TrialError as error:
                return replace(candidate, images_per_second=0.0, verdict=f"failed: {str(error)[:160]}")
            if rate > candidate.images_per_second:
                candidate = replace(candidate, images_per_second=round(rate, 1), best_batch_size=size)
        if self.build_options.device != CPU and not candidate.images_per_second:
            return replace(
                candidate, verdict=f"failed: {self.build_options.device} has no memory for {sizes[0]} images at once"
            )
        return candidate

    def _choose(self, rows: list[Candidate]) -> list[Candidate]:
        allowed = self.manifest.tolerance
        return builds.choose(
            rows,
            agreement=allowed.agreement,
            map_loss=allowed.map_loss,
            requested=self.build_options.use,
            images=len(self.samples.comparison),
        )

    def _write_golden(self, rows: Sequence[Candidate], trials: Trials) -> None:
        """Each has stored answers of its own: int8 may differ from fp32 by more than any accident should."""
        for each in rows[1:]:
            if each.is_measured:
                path = self._report(rows).golden_path(each)
                new = path.with_suffix(".new")
                trials.of(each).ask("golden", each, path=str(new))
                new.replace(path)

    def _report(self, rows: Sequence[Candidate]) -> Report:
        return Report(
            model=self.manifest.key,
            digest=self.manifest.digest,
            processor=devices.processor(self.build_options.device),
            device=self.build_options.device,
            versions=builds.versions(),
            images=len(self.samples.comparison),
            candidates=tuple(rows),
            calibration_images=len(self.samples.calibration),
            truth=self._truth,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(time.monotonic() - self.began, 1),
            folder=self.place,
        )

    @property
    def _truth(self) -> str:
        if self.manifest.task == TENSOR or not tasks.BY_NAME[self.manifest.task].has_boxes:
            return ""
        return "reference" if self.samples.truth is None else "objects"

    def _clean(self, reports: Sequence[Report]) -> None:
        """Remove files that neither this build nor the one before names; an engine may be reading the latter's."""
        named = {Path(each.file).stem for report in reports for each in report.candidates if each.file}
        for path in self.place.iterdir():
            if path.suffix in (".xml", ".bin", ".pt2") and path.stem not in named:
                path.unlink(missing_ok=True)


# ── command ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the chosen models. Returns 2 with one line when settings, store or a model are wrong."""
    given = _parser().parse_args(arguments)
    try:
        settings = config.resolve()
        chosen = manifests.find(settings.models_dir, (given.model,) if given.model else settings.models)
        if given.background:
            background.begin()
            _build_for_engine(chosen, settings.state_dir, devices.resolve(settings.device))
        else:
            only = tuple(filter(None, given.only.split(",")))
            device = devices.resolve(settings.device)
            build_options = BuildOptions("", only, given.missing, given.limit_seconds, given.rounds, device)
            build_all(
                chosen,
                settings.state_dir,
                build_options,
                is_shipped=given.into_store,
                is_missing_only=given.missing,
                progress=lambda words: print(words, flush=True),
            )
    except CaskError as error:
        print(" ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.runtimes.build.build",
        description="Build as the image and the engine need it; for people: flask model build.",
    )
    parser.add_argument("--model", default="", help="name or name@version; every model of MODELS when left out")
    parser.add_argument("--only", default="", help='candidates to try, with commas between: "openvino int8"')
    parser.add_argument("--limit-seconds", type=float, default=LIMIT_SECONDS, help="longest that one step may take")
    parser.add_argument("--into-store", action="store_true", help="write beside the manifest, not into STATE_DIR")
    parser.add_argument(
        "--missing", action="store_true", help="leave out what has a report for here; take fitting files"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of timing")
    parser.add_argument("--background", action="store_true", help="as the engine asks for it: least priority, reuse")
    return parser


def build_all(
    chosen: Sequence[Manifest],
    state_dir: Path,
    build_options: BuildOptions,
    *,
    is_shipped: bool = False,
    is_missing_only: bool = False,
    progress: Say = print,
    advance: Advance = _nothing,
) -> None:
    """Build models one after the other and tell what goes on, with a table for each; ``steps`` each.

    ``is_shipped``: into the model's own folder. ``is_missing_only``: not what has a report for this machine. Raises
    ModelLoadError, OSError.
    """
    _check_names((*build_options.only, *filter(None, [build_options.use])), build_options.device)
    with _alone(state_dir):
        for manifest in chosen:
            if manifest.task == CODE:
                progress(f"{manifest.key}: nothing is built: its own code computes it.")
                continue
            if (
                is_missing_only
                and builds.read(state_dir, manifest, devices.processor(build_options.device)) is not None
            ):
                progress(f"{manifest.key} has a report for this machine.")
                for _ in range(steps(build_options)):
                    advance()
                continue
            report = build_model(manifest, state_dir, build_options, progress, advance, is_shipped=is_shipped)
            progress(f"\n{table(report)}\n")


def last_report(state_dir: Path, manifest: Manifest, device: str) -> Report:
    """What was built for this machine. Raises ModelLoadError where nothing was."""
    name = devices.processor(device)
    report = builds.read(state_dir, manifest, name)
    if report is None:
        raise ModelLoadError(f"{manifest.key} was not built for {name} here.", hint="Run make model-build.")
    return report


def _build_for_engine(chosen: Sequence[Manifest], state_dir: Path, device: str) -> None:
    """Build what has no report for this machine, and keep its progress where others can see it."""
    build_options = BuildOptions(is_reusing=True, limit_seconds=BACKGROUND_LIMIT_SECONDS, device=device)
    name = devices.processor(device)
    with _alone(state_dir):
        for manifest in chosen:
            # The previous owner of the lock may have built it.
            if builds.read(state_dir, manifest, name) is not None:
                continue
            tell = functools.partial(_tell, builds.folder(state_dir, manifest))
            try:
                tell("begun")
                build_model(manifest, state_dir, build_options, tell)
            except (CaskError, OSError) as error:
                tell("ended", state="failed", error=str(error))
                raise ModelLoadError(str(error)) from None
            tell("done", state="done")


def _tell(place: Path, words: str, *, state: str = "running", error: str = "") -> None:
    print(words, flush=True)
    builds.write_progress(place, Progress(state, words, error))


def _check_names(names: Sequence[str], device: str) -> None:
    known = [each.name for each in (CANDIDATES if device == CPU else GPU_CANDIDATES)]
    for name in names:
        if name not in known:
            raise ModelLoadError(f"{name!r} is no candidate.", hint=f"There are: {', '.join(known)}.")


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Wait until nobody else builds here: two at once would time each other."""
    lock = builds.lock(state_dir)
    if lock is None:
        print("Another build is running here; waiting for its end.", flush=True)
        lock = builds.lock(state_dir, is_waiting=True)
    assert lock is not None
    with lock:
        yield


if __name__ == "__main__":
    sys.exit(main())
