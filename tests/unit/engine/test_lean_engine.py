"""The engine imports nothing of OpenVINO that only builds need."""

import subprocess
import sys

import pytest

from app import config
from app.engine import service

PROGRAM = f"""
import sys
sys.modules[{service.CONVERTERS!r}] = None
import openvino
print(hasattr(openvino, "Core"), hasattr(openvino, "convert_model"))
"""


def test_openvino_does_without_its_converters() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert done.stdout == "True False\n"


def test_engine_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        """In the place of the first thing that would last."""

    def stop() -> None:
        raise StopError

    monkeypatch.delitem(sys.modules, service.CONVERTERS, raising=False)
    monkeypatch.setattr(service.config, "removed", stop)
    with pytest.raises(StopError):
        service.run(config.describe("test"))

    assert sys.modules.pop(service.CONVERTERS) is None
