"""From a manifest to a model that predicts: the door of this package. Loads torch only where torch computes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app import tasks
from app.errors import CaskError, ModelLoadError
from app.host import machine
from app.host.machine import CPU
from app.models import builds
from app.models.builds import Candidate, Report
from app.models.manifests import TENSOR, Manifest
from app.runtimes import device_memory, devices
from app.runtimes.model import Model, TaskModel
from app.storage import files

__all__ = ["Model", "Plan", "load_candidate", "load_model", "load_task_model", "processor", "set_up_torch"]

log = logging.getLogger("cask.engine")

AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """How models are to be computed here.

    ``state_dir``: where built files lie. ``workers``: how many threads predict at once. ``torch_threads``: threads
    inside one prediction of torch. ``runtime`` and ``precision``: what is requested, or auto for what the build chose.
    ``device``: as DEVICE says. ``max_batch_size``: of an operator; 0 is what the build found best on a GPU.
    """

    state_dir: Path | None = None
    workers: int = 1
    torch_threads: int = 1
    runtime: str = AUTO
    precision: str = AUTO
    device: str = CPU
    max_batch_size: int = 0


def load_model(manifest: Manifest, plan: Plan | None = None) -> Model:
    """Load what the build chose for this machine, else what computes alike on any processor, else torch in fp32.

    Not warmed up yet; compared with its stored answers only where it was measured on another processor. Raises
    ModelLoadError when the architecture is unknown, the weights are missing, altered or do not fit, the plan's device
    cannot be used or has no room, or what the plan params was not built.
    """
    plan = plan or Plan()
    if manifest.is_network:
        # RUNTIME and DEVICE choose among torch's forms; this one has a runtime of its own.
        plan = replace(plan, runtime=AUTO, device=CPU)
    device = devices.resolve(plan.device)
    if device == CPU and (portable := _load_portable(manifest, plan)) is not None:
        return portable
    report, candidate = _choose(manifest, plan, device)
    if candidate.runtime != "openvino":
        _need_torch(manifest, candidate)
    if candidate.runtime.startswith("torch"):
        set_up_torch(plan.torch_threads)
    if device == CPU:
        return _load(manifest, plan, report, candidate, device)
    out_of_memory = devices.out_of_memory(device)
    with device_memory.refused(manifest.key, device, out_of_memory):
        model = _load(manifest, plan, report, candidate, device)
    model.device, model.processor = device, devices.processor(device)
    if report is not None and not plan.max_batch_size:
        model.best_batch_size = candidate.best_batch_size
    return device_memory.BoundedModel(model, out_of_memory, devices.empty_cache)


def load_task_model(manifest: Manifest) -> TaskModel:
    """A model of pictures as it is loaded on a processor, where nothing is wrapped around it. Raises ModelLoadError."""
    model = load_model(manifest)
    assert isinstance(model, TaskModel)
    return model


def _need_torch(manifest: Manifest, candidate: Candidate) -> None:
    if not machine.has_torch():
        raise ModelLoadError(
            f"{manifest.key} would be computed by {candidate.name}, and torch is not installed: this is a slim image, "
            "which serves models that were built for OpenVINO, and found none for this one.",
            hint="Make the image anew: it builds what is in models/ (make image SLIM=yes). Or take one with torch.",
        )


def _load_portable(manifest: Manifest, plan: Plan) -> Model | None:
    """Where nothing was measured on this processor: a file from another one that gives its stored answers on this one.

    int8 may round differently where instructions are missing, so each has to prove itself before it is taken.
    """
    reports = builds.read_all(plan.state_dir, manifest) if plan.state_dir else []
    if any(each.fits() for each in reports):
        return None
    for report in reports:
        for candidate in builds.portable(report):
            if not _is_wished(plan, candidate):
                continue
            try:
                model = _load(manifest, plan, report, candidate, CPU)
                model.golden_check()
            except CaskError as error:
                log.warning("model %s does not use %s here: %s", manifest.key, candidate.name, error.message)
            else:
                return model
    return None


def processor(requested: str) -> str:
    """What reports call the device that a value of DEVICE means. Raises ModelLoadError when it cannot be used."""
    return devices.processor(devices.resolve(requested))


def _load(manifest: Manifest, plan: Plan, report: Report | None, candidate: Candidate, device: str) -> Model:
    is_reference = report is None or (candidate.runtime, candidate.precision) == builds.reference(manifest)
    if is_reference and manifest.is_network:
        return load_candidate(manifest, candidate, manifest.weights_path, plan.workers)
    if report is None or is_reference:
        return model_class(manifest).load(manifest, device)
    log.info("model %s uses %s", manifest.key, candidate.name)
    path = report.path(candidate, manifest)
    if candidate.file:
        _check_digest(path, candidate)
    model = load_candidate(manifest, candidate, path, plan.workers, device)
    model.golden_path = report.golden_path(candidate)
    return model


def _choose(manifest: Manifest, plan: Plan, device: str) -> tuple[Report | None, Candidate]:
    """The candidate that serves, and its report: what the plan params, else what the build chose.

    Where no report fits the device: torch in fp32.
    """
    reports = builds.read_all(plan.state_dir, manifest) if plan.state_dir else []
    name = devices.processor(device) if reports else ""
    fitting = next((each for each in reports if each.fits(name)), None)
    if fitting is not None:
        return fitting, _requested(manifest, plan, fitting.candidates)
    return None, _requested(manifest, plan, [Candidate(*builds.reference(manifest), is_chosen=True)])


def _requested(manifest: Manifest, plan: Plan, known: Sequence[Candidate]) -> Candidate:
    """What serves of those that can: the chosen one, else the fastest that is faithful, else the fastest."""
    usable = [each for each in known if (each.is_measured or each.is_chosen) and _is_wished(plan, each)]
    if not usable:
        requested = f"RUNTIME={plan.runtime}, PRECISION={plan.precision}, DEVICE={plan.device}"
        there = ", ".join(each.name for each in known if each.is_measured or each.is_chosen)
        raise ModelLoadError(
            f"{manifest.key} cannot be computed as requested ({requested}); there is: {there}.",
            hint=f"Build it with make model-build MODEL={manifest.key}, or leave both at auto.",
        )
    return max(usable, key=lambda each: (each.is_chosen, each.is_faithful, each.images_per_second))


def _is_wished(plan: Plan, candidate: Candidate) -> bool:
    return plan.runtime in (AUTO, candidate.runtime) and plan.precision in (AUTO, candidate.precision)


def model_class(manifest: Manifest) -> Any:
    """What loads a model: the engine's half of its task, or what computes networks of arrays."""
    if manifest.task == TENSOR:
        from app.runtimes.tensor_model import TensorModel

        return TensorModel
    return tasks.BY_NAME[manifest.task].model_class


def load_candidate(manifest: Manifest, candidate: Candidate, path: Path, workers: int, device: str = CPU) -> Any:
    """A model as one candidate computes it. ``workers``: how many threads predict at once. Raises ModelLoadError."""
    if manifest.is_network and path == manifest.weights_path:
        check_network(manifest)
    if candidate.runtime.startswith("torch"):
        model = model_class(manifest).load(manifest, device, candidate.runtime, candidate.precision)
    else:
        if candidate.runtime == "aotinductor":
            set_up_torch(1)
        model = model_class(manifest).load_file(manifest, candidate, path, workers)
    model.computed_by = candidate.name
    return model


def _check_digest(path: Path, candidate: Candidate) -> None:
    """What lies outside of the store may have been touched, and a network hides small damage well."""
    try:
        found = builds.digest(path)
    except OSError as error:
        raise ModelLoadError(
            f"{path} cannot be read: {files.reason(error)}.", hint="Build it again: make model-build."
        ) from None
    if found != candidate.sha256:
        raise ModelLoadError(
            f"{path} was altered after it was built: its SHA-256 is {found[:16]}…, the report says "
            f"{candidate.sha256[:16]}….",
            hint="Build it again: make model-build.",
        )


def check_network(manifest: Manifest) -> None:
    """Compare a whole network with the manifest's SHA-256. Raises ModelLoadError."""
    path = manifest.weights_path
    try:
        found = builds.digest(path)
    except OSError as error:
        raise ModelLoadError(
            f"The network {path} cannot be read: {files.reason(error)}.",
            hint="Restore it and its .bin from a backup, or add the model again.",
        ) from None
    if found != manifest.sha256:
        raise ModelLoadError(
            f"{path} and its .bin have SHA-256 {found}; the manifest expects {manifest.sha256}.",
            hint="A file was altered or cut off. Restore both, or add the model as a new version.",
        )


def set_up_torch(threads: int) -> None:
    """Compute one prediction with so many threads, and use the memory of its results again."""
    # Threads inside one prediction wait for each other whenever the machine does something else.
    import torch

    torch.set_num_threads(threads)
    machine.keep_freed_memory()
