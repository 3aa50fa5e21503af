"""Build a model before it is served: ``python -m app.vision.build``, which is ``make model-build``.

Makes each candidate, times it on this processor with one thread, compares it with eager fp32 on the model's sample
images, and marks the fastest within the tolerance. Build tools (OpenVINO's converter, NNCF) are needed here only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from app import config, images, manifests
from app.errors import CaskError, ModelLoadError
from app.manifests import Manifest
from app.results import Detection, DetectOptions
from app.vision import agreement, built, eager, golden, registry
from app.vision.agreement import Agreement
from app.vision.built import Candidate, Report
from app.vision.classifier import Classifier
from app.vision.model import Model, warm_up_shape

SAMPLES_FOLDER = "samples"
# With fewer pictures an agreement of 99.5 % means nothing, and int8 has too little to learn its ranges from.
LEAST_SAMPLES = 50
CALIBRATION_IMAGES = 128
BATCH_SIZES = (1, 4, 8)
TIMED_SECONDS = 1.0
# Boxes this little under the served threshold still count as found: being 0.01 lower is not being lost.
THRESHOLD_SLACK = 0.05

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """What all candidates of one model are compared on. ``samples``: inputs as the engine gets them, uint8."""

    manifest: Manifest
    samples: Sequence[np.ndarray]
    folder: Path
    made: set[Path] = field(default_factory=set)


def build_model(manifest: Manifest, state_dir: Path, *, wished: str = "", progress: Progress = print) -> Report:
    """Make, time and compare all candidates, write and return the report.

    ``wished`` names a candidate (``openvino fp32``) that is to serve however fast it is. Raises ModelLoadError when
    the model itself cannot be loaded; a candidate that fails is a row that says why.
    """
    torch.set_num_threads(1)
    folder = built.folder(state_dir, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(manifest, _samples(manifest), folder)
    progress(f"{manifest.key}: {len(bench.samples)} sample images")
    reference = registry.load_model(manifest)
    expected = _outcome(reference, bench)
    rows = [_timed(Candidate("torch", "fp32"), reference, bench, progress)]
    rows += [_try(candidate, make, expected, bench, progress) for candidate, make in _makers(bench)]
    rows = built.choose(
        rows, agreement=manifest.tolerance.agreement, map_loss=manifest.tolerance.map_loss, wished=wished
    )
    report = Report(manifest.key, manifest.digest, built.processor(), built.versions(), len(bench.samples), tuple(rows))
    built.write(state_dir, manifest, report)
    return report


def table(report: Report) -> str:
    """The report as text, for a person."""
    head = ("candidate", "images/s", "agreement", "largest difference", "mAP loss", "verdict")
    rows = [
        (
            each.name,
            f"{each.images_per_second:.1f}" if each.images_per_second else "-",
            f"{each.agreement:.2%}",
            f"{each.largest_difference:.4f}",
            f"{each.map_loss * 100:.2f}",
            each.verdict,
        )
        for each in report.candidates
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join([f"{report.model} on {report.processor}, one thread, {report.images} images", *lines])


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _makers(bench: Bench) -> Iterator[tuple[Candidate, Callable[[Candidate], Model]]]:
    """Each candidate besides the reference, and how it is made."""
    if importlib.util.find_spec("openvino") is None:
        return
    if not _is_convertible(bench.manifest):
        return
    yield Candidate("openvino", "fp32", "fp32.xml"), lambda each: _openvino(each, bench, _convert)
    if len(bench.samples) < LEAST_SAMPLES:
        return
    yield Candidate("openvino", "bf16", "fp32.xml"), lambda each: _openvino(each, bench, _convert)
    if importlib.util.find_spec("nncf") is not None:
        yield Candidate("openvino", "int8", "int8.xml"), lambda each: _openvino(each, bench, _quantise)


def _is_convertible(manifest: Manifest) -> bool:
    """Detectors that list boxes inside have shapes that depend on the picture; no other runtime takes them."""
    return manifest.task == "classify" or eager.is_dense(eager.network(manifest))


def _try(
    candidate: Candidate, make: Callable[[Candidate], Model], expected: Any, bench: Bench, progress: Progress
) -> Candidate:
    try:
        model = make(candidate)
        compared = _compare(bench.manifest, expected, _outcome(model, bench))
    except (CaskError, RuntimeError, ValueError, OSError, ImportError) as error:
        progress(f"  {candidate.name}: failed: {error}")
        return replace(candidate, agreement=0.0, verdict=f"failed: {str(error).splitlines()[0][:160]}")
    (built.golden_path(bench.folder / candidate.file, candidate)).write_bytes(golden.make(model, bench.samples[:4]))
    measured = replace(
        candidate,
        sha256=built.digest(bench.folder / candidate.file),
        agreement=compared.agreement,
        largest_difference=compared.largest_difference,
        map_loss=compared.map_loss,
    )
    return _timed(measured, model, bench, progress)


def _openvino(candidate: Candidate, bench: Bench, make_file: Callable[[Bench], Path]) -> Model:
    path = bench.folder / candidate.file
    if path not in bench.made:
        make_file(bench)
        bench.made.add(path)
    candidate = replace(candidate, sha256=built.digest(path))
    return registry.load_built(bench.manifest, path, candidate, workers=1)


def _wrapped(manifest: Manifest) -> nn.Module:
    network = eager.network(manifest)
    kind = eager.ClassifierNetwork if manifest.task == "classify" else eager.DenseDetectorNetwork
    return kind(network, manifest.input).eval()


def _convert(bench: Bench) -> Path:
    """The fp32 network as OpenVINO's file; takes uint8 [B, H, W, 3], the order in which pictures arrive."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    height, width = warm_up_shape(bench.manifest.input)
    example = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    with _quiet():
        model = openvino.convert_model(
            _wrapped(bench.manifest), example_input=example, input=[openvino.PartialShape([-1, 3, height, width])]
        )
    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    path = bench.folder / "fp32.xml"
    openvino.save_model(steps.build(), path, compress_to_fp16=False)
    return path


def _quantise(bench: Bench) -> Path:
    """Post-training quantisation to int8, its ranges learned from sample images (NNCF)."""
    import nncf
    import openvino

    source = bench.folder / "fp32.xml"
    pictures = [picture[None] for picture in bench.samples[:CALIBRATION_IMAGES]]
    with _quiet():
        model = nncf.quantize(openvino.Core().read_model(source), nncf.Dataset(pictures), subset_size=len(pictures))
    path = bench.folder / "int8.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _outcome(model: Model, bench: Bench) -> Any:
    """What a model says of all samples: probabilities, or detections around the served threshold."""
    if isinstance(model, Classifier):
        return np.concatenate([model.probabilities(picture[None]) for picture in bench.samples])
    return [
        [one for one in model.predict([picture], [_around(bench.manifest)])[0] if isinstance(one, Detection)]
        for picture in bench.samples
    ]


def _around(manifest: Manifest) -> DetectOptions:
    served = manifest.serve
    return DetectOptions(max(0.0, served.score_threshold - THRESHOLD_SLACK), served.iou_threshold, served.max_results)


def _compare(manifest: Manifest, expected: Any, found: Any) -> Agreement:
    if manifest.task == "classify":
        return agreement.of_probabilities(expected, found)
    served = [[one for one in each if one.score >= manifest.serve.score_threshold] for each in expected]
    return agreement.of_detections(served, found)


def _timed(candidate: Candidate, model: Model, bench: Bench, progress: Progress) -> Candidate:
    """Images a second of one thread, at the best batch size."""
    sizes = [size for size in BATCH_SIZES if size <= bench.manifest.serve.max_batch_size] or [1]
    rates = {size: _rate(model, bench, size) for size in sizes}
    best = max(rates, key=lambda size: rates[size])
    progress(
        f"  {candidate.name}: {rates[best]:.1f} images/s in batches of {best}, agreement {candidate.agreement:.2%}"
    )
    return replace(candidate, images_per_second=rates[best], best_batch_size=best)


def _rate(model: Model, bench: Bench, size: int) -> float:
    batch = [bench.samples[i % len(bench.samples)] for i in range(size)]
    batch = [picture for picture in batch if picture.shape == batch[0].shape]
    options = [bench.manifest.default_options()] * len(batch)
    model.predict(batch, options)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < TIMED_SECONDS:
        model.predict(batch, options)
        count += len(batch)
    return count / passed


def _samples(manifest: Manifest) -> list[np.ndarray]:
    """The model's sample images, scaled as the web tier does; a grey one where it has none."""
    paths = sorted((manifest.directory / SAMPLES_FOLDER).glob("*.*"))
    limits = images.Limits(2**31, 2**31, ("JPEG", "PNG", "WEBP"))
    found = [images.read(path.read_bytes(), manifest.input, limits).pixels for path in paths]
    return found or [np.full((*warm_up_shape(manifest.input), 3), 114, np.uint8)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters draw bars and warn of what they trace; a person wants one line a candidate."""
    import warnings

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


# ── command ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the chosen models. Returns 2 with one line when settings, store or a model are wrong."""
    parser = argparse.ArgumentParser(prog="make model-build", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="", help="name or name@version; every model of MODELS when left out")
    parser.add_argument("--use", default="", help='the candidate that is to serve, such as "openvino fp32"')
    parser.add_argument("--report", action="store_true", help="print the last report and build nothing")
    given = parser.parse_args(arguments)
    try:
        settings = config.resolve()
        chosen = manifests.find(settings.models_dir, (given.model,) if given.model else settings.models)
        for manifest in chosen:
            print(
                _print_report(settings.state_dir, manifest) if given.report else _build(settings, manifest, given.use)
            )
    except CaskError as error:
        print(" ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return 2
    return 0


def _build(settings: config.Settings, manifest: Manifest, wished: str) -> str:
    say = lambda text: print(text, flush=True)  # noqa: E731 - a name for one argument
    report = build_model(manifest, settings.state_dir, wished=wished, progress=say)
    return f"\n{table(report)}\n\nThe engine serves it so after its next start.\n"


def _print_report(state_dir: Path, manifest: Manifest) -> str:
    report = built.read(state_dir, manifest)
    if report is None:
        raise ModelLoadError(f"{manifest.key} was not built on this machine.", hint="Run make model-build.")
    return table(report) + "\n"


if __name__ == "__main__":
    sys.exit(main())
