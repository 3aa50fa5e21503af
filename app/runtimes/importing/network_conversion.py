"""Convert a file once to what serves: a network that takes pictures as they arrive and answers what its task needs.

It is compared with the file itself before it is written. Runs in a process apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import GoldenCheckError, ModelLoadError
from app.inference import images
from app.models.manifests import InputSpec
from app.runtimes.build import agreement, samples
from app.runtimes.importing import detection_comparison, network_heads, network_input, network_reading
from app.runtimes.importing.network_heads import Head
from app.runtimes.importing.network_input import NetworkInput
from app.runtimes.importing.network_reading import Network, Original, compiled
from app.runtimes.importing.network_wanted import Converted, Wanted

FILE_NAME = "network.xml"
# So many pictures are compared: a wrong scale or order of channels shows on each.
MOST_COMPARED = 8
# Of the largest answer: rounding of fp32 in another order stays far below.
TOLERANCE = 0.01
# Of the pixels of a mask: two classes of nearly the same score may change places.
MASK_TOLERANCE = 0.005


def convert(wanted: Wanted, folder: Path) -> Converted:
    """Write ``network.xml`` and ``.bin`` into the folder. Raises ModelLoadError, GoldenCheckError."""
    network = network_reading.read(wanted)
    wanted = wanted.completed(network.usual)
    found = _input(network.model, wanted)
    is_single = not _opened(network.model, found)
    head = network_input.model_class(wanted).file_head(network.model, wanted, found.spec.size)
    pictures = _pictures(wanted, found.spec)
    made = _assembled(network.model, found, head, 1 if is_single else -1)
    if not is_single and not _computes_several(made, head, pictures):
        network = network_reading.read(wanted)
        network.model.reshape(found.shape(1))
        made, is_single = _assembled(network.model, found, head, 1), True
    said = _compared(made, network, found, head, pictures)
    network_reading.save(made, folder / FILE_NAME)
    notes = ["its batch is fixed, so pictures are computed one by one"] if is_single else []
    return Converted(found.spec, head.count, is_single, head.options, (*network.said, head.said, said, *notes))


def _input(model: Any, wanted: Wanted) -> NetworkInput:
    if len(model.inputs) != 1:
        names = ", ".join(network_heads.described(port) for port in model.inputs)
        hint = "A picture is one input. Export the network with the others inside, or take TASK=tensor."
        raise ModelLoadError(f"{wanted.file} takes {len(model.inputs)} inputs: {names}.", hint=hint)
    port = model.input(0)
    kind = port.get_element_type().get_type_name()
    return network_input.find(wanted, network_heads.sides(port), kind, network_heads.described(port))


def _opened(model: Any, found: NetworkInput) -> bool:
    """Let the network take any number of pictures; whether it does."""
    try:
        model.reshape(found.shape(-1))
    except RuntimeError:
        model.reshape(found.shape(1))
        return False
    return True


def _assembled(model: Any, found: NetworkInput, head: Head, batch: int) -> Any:
    """The network with its scaling before it and its head behind; takes uint8 [B, H, W, 3]."""
    import openvino
    from openvino import opset13 as ops

    side = found.spec.size
    pictures = ops.parameter(openvino.PartialShape([batch, side, side, 3]), np.uint8, "images")
    old = model.get_parameters()[0]
    for target in list(old.output(0).get_target_inputs()):
        target.replace_source_output(_scaled(pictures, found).output(0))
    sources = [model.output(place).get_node().input_value(0) for place in head.outputs]
    return openvino.Model(head.make(sources), [pictures], "network")


def _scaled(pictures: Any, found: NetworkInput) -> Any:
    """What ``NetworkInput.array`` computes, as operators."""
    from openvino import opset13 as ops

    node = pictures
    if found.is_bgr:
        node = ops.gather(node, np.array([2, 1, 0]), np.array(3))
    if found.dtype != np.uint8 or found.channels == 1:
        node = ops.convert(node, "f32")
    if found.dtype != np.uint8:
        mean, std = np.array(found.spec.mean, np.float32), np.array(found.spec.std, np.float32)
        node = ops.add(ops.multiply(node, 1 / (255 * std)), -mean / std)
    if found.channels == 1:
        node = ops.reduce_sum(
            ops.multiply(node, np.array(network_input.GREY_SHARES, np.float32)), np.array([3]), keep_dims=True
        )
    if not found.is_nhwc:
        node = ops.transpose(node, np.array([0, 3, 1, 2]))
    kind = {np.float32: "f32", np.float16: "f16", np.uint8: "u8"}[found.dtype]
    return ops.convert(node, kind) if kind != node.output(0).get_element_type().get_type_name() else node


# ── compared ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pictures(wanted: Wanted, spec: InputSpec) -> np.ndarray:
    """Sample pictures as the service scales them, uint8 [B, H, W, 3]; a made-up one where there are none."""
    from app.runtimes.checks import golden_answers

    found = samples.pictures_in(Path(wanted.samples)) if wanted.samples else []
    chosen = found[:: -(-len(found) // MOST_COMPARED)] if found else []
    read = [images.read(path.read_bytes(), spec, samples.LIMITS).pixels for path in chosen]
    return np.stack(read or [golden_answers.made_up_picture(spec)])


def _computes_several(model: Any, head: Head, pictures: np.ndarray) -> bool:
    """Whether two at once get the answers of each alone: an export may have its own batch size written into it."""
    two = np.stack([pictures[0], pictures[-1][::-1, ::-1]])
    try:
        run = compiled(model)
        together = run([two])
        apart = [np.concatenate(each) for each in zip(run([two[:1]]), run([two[1:]]), strict=True)]
    except RuntimeError:
        return False
    # A list of the objects of both pictures is no answer to each.
    is_alike = [each.shape for each in together] == [each.shape for each in apart]
    return is_alike and _apart(head, together, apart) <= TOLERANCE


def _compared(made: Any, network: Network, found: NetworkInput, head: Head, pictures: np.ndarray) -> str:
    """How far what serves is from the file itself, in words. Raises GoldenCheckError where it is too far."""
    run, finish, largest = compiled(made), _finisher(head), 0.0
    for picture in pictures:
        outputs = network.original([found.array(picture[None])])
        expected = finish([outputs[place] for place in head.outputs])
        if not all(np.isfinite(each).all() for each in expected):
            hint = "Are the values scaled as in training? See --values, --mean and --std."
            raise GoldenCheckError("The file itself answers NaN or infinity for a picture.", hint=hint)
        largest = max(largest, _apart(head, expected, run([picture[None]])))
    words = f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''} compared with {network.by}"
    if largest > (MASK_TOLERANCE if expected[0].dtype == np.uint8 else TOLERANCE):
        hint = "The conversion changed the network. Export it another way, and report this."
        raise GoldenCheckError(f"What would serve differs from the file by {largest:.4f}; {words}.", hint=hint)
    return f"{words}: the largest difference is {largest:.2g}"


def _finisher(head: Head) -> Original:
    """The head alone, for the outputs of the file itself."""
    import openvino
    from openvino import opset13 as ops

    known: dict[tuple[Any, ...], Original] = {}

    def finish(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        key = tuple((each.shape, each.dtype.name) for each in outputs)
        if key not in known:
            sources = [ops.parameter(openvino.PartialShape(list(each.shape)), each.dtype.type) for each in outputs]
            known[key] = compiled(openvino.Model(head.make([each.output(0) for each in sources]), sources, "head"))
        return known[key](outputs)

    return finish


def _apart(head: Head, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Of masks the share of pixels that differ; else the largest difference, as a share of the largest value or 1."""
    if "head" in head.options:
        return detection_comparison.apart(head.options, first, second)
    if first[0].shape == second[0].shape and first[0].dtype == np.uint8:
        return float((first[0] != second[0]).mean())
    return max(agreement.of_values(*pair) for pair in zip(first, second, strict=True))
