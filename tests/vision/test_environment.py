"""A script of somebody's own, in a folder of its own, imports torchvision from the environment that the set-up made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import servers

SCRIPT = """
import sys
import torchvision
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

assert "app" not in sys.modules or sys.modules["app"].__file__.startswith({folder!r})
model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
with torch.no_grad():
    (found,) = model([torch.rand(3, 64, 64)])
boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
print(sorted(found), kept.tolist())
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_torchvision_imports_and_detects_in_a_users_script(tmp_path: Path) -> None:
    # Many people's application is called so.
    (tmp_path / "app.py").write_text("raise RuntimeError('not for you')")
    (tmp_path / "mine.py").write_text(SCRIPT.format(folder=str(tmp_path)))

    done = run(tmp_path, "mine.py")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['boxes', 'labels', 'scores'] [1, 2]"


def test_nothing_heavy_is_imported_before_torchvision_is_asked_for(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", "import sys; print(sorted({'torch', 'numpy', 'torchvision'} & set(sys.modules)))")

    assert done.stdout.strip() == "[]"


def test_torchs_compiler_is_not_imported_with_torchvision_and_works_when_asked() -> None:
    script = """
import sys, app.runtimes.operators
print("torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
from torchvision.ops.roi_align import is_compile_supported as early
from torch._dynamo.utils import is_compile_supported
print(early("cpu") == is_compile_supported("cpu"), early is not is_compile_supported)
"""

    done = run(servers.ROOT, "-c", script)

    assert done.stdout.splitlines() == ["False False", "True True"], done.stderr


def test_torchvisions_data_sets_are_imported_when_asked_for_and_its_exporter_is_not() -> None:
    script = """
import sys
from app.runtimes.operators import torchvision
print({"torchvision.datasets", "torch.onnx", "torchvision.ops._register_onnx_ops"} & set(sys.modules))
print(torchvision.datasets.FakeData.__module__)
from torchvision.datasets import FakeData
print(torchvision.datasets.FakeData is FakeData, torchvision.datasets is sys.modules["torchvision.datasets"])
"""

    done = run(servers.ROOT, "-c", script)

    assert done.stdout.splitlines() == ["set()", "torchvision.datasets.fakedata", "True True"], done.stderr
