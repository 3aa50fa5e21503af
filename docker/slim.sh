#!/bin/sh
# Take out of a virtual environment what serving never reads; says what and how much. Called by docker/Dockerfile.
set -eu

venv="$(cd "$1" && pwd)"
packages="$(echo "$venv"/lib/python3*/site-packages)"

size() { du -sm "$1" | cut -f1; }
before="$(size "$venv")"

without() { # without REASON COMMAND… : run it, say how much it freed
    reason="$1"
    shift
    had="$(size "$packages")"
    "$@"
    printf '  %5s MB  %s\n' "$((had - $(size "$packages")))" "$reason"
}

cd "$packages"
without "tests in C++" rm -rf torch/test torch/lib/libjitbackend_test.so torch/lib/libtorchbind_test.so
# torch_shm_manager is looked for by `import torch`.
without "programs for building torch" find torch/bin -type f ! -name torch_shm_manager -delete
without "headers and static libraries, for compilers" \
    sh -c 'rm -rf torch/include torch/share numpy/_core/include && find . -name "*.a" -delete'
without "tests in Python" find mpmath networkx numpy sympy -type d -name tests -prune -exec rm -rf {} +

# What was edited is tried: everything that serving imports still imports and computes.
"$venv/bin/python" -W ignore -c '
import flask, limits, numpy, PIL, pydantic_settings, redis, safetensors, sentry_sdk, torch
torch.nn.Linear(2, 2)(torch.ones(1, 2))'
printf '  %5s MB  left of %s\n' "$(size "$venv")" "$before"
