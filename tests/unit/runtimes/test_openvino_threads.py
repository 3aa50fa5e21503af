"""Two threads that ask OpenVINO for the first time at once, as models do that are loaded side by side."""

import subprocess
import sys

from app.config import ROOT

# A thread keeps Python's lock until it gives it up itself, so that both come to the first array together.
PROGRAM = """
import faulthandler, sys, threading
import numpy as np
from openvino import opset13 as ops
from app.runtimes import openvino_runtime

faulthandler.dump_traceback_later(60, exit=True)
openvino = openvino_runtime.library()
numbers = ops.parameter([-1, 4], np.float32)
compiled = openvino.Core().compile_model(openvino.Model([ops.relu(numbers)], [numbers]), "CPU", {"NUM_STREAMS": 2})
requests, both = [compiled.create_infer_request() for _ in range(2)], threading.Barrier(2)
sys.setswitchinterval(0.5)

def ask(request):
    array = np.zeros((1, 4), np.float32)
    both.wait()
    request.infer({0: array}, share_inputs=True)

threads = [threading.Thread(target=ask, args=(request,), daemon=True) for request in requests]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("both answered")
"""


def test_two_threads_may_ask_first() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "both answered\n", done.stderr
