"""A third runtime: AOTInductor packages, machine code that torch made ahead of time. Loading needs no compiler.

``torch._C._aoti`` is what torch's own ``aoti_load_package`` calls; that one would import the compiler's side too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from app.errors import ModelLoadError
from app.runtimes.model import Images, Run

# The only network in a package; torch's name for it when none was given.
NETWORK_NAME = "model"


def load(path: Path, threads: int) -> Run:
    """A network by a package. ``threads``: how many predict at once. Raises ModelLoadError."""
    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), NETWORK_NAME, False, threads, -1)
    except RuntimeError as error:
        raise ModelLoadError(
            f"{path} cannot be loaded: {str(error).splitlines()[0]}",
            hint="It is unpacked below the temporary folder, where programs must be allowed; or set RUNTIME=torch.",
        ) from None

    def run(images: Images) -> list[np.ndarray]:
        with torch.inference_mode():
            given = torch.from_numpy(np.require(images, requirements=["C", "W"]))
            return [output.numpy() for output in loader.run([given])]

    return run
