#!/bin/sh
# Take out of a virtual environment what serving never reads; says what and how much. Called by docker/Dockerfile.
#
#   slim.sh VENV          what nothing reads
#   slim.sh VENV yes      also torch, and what only it or a GPU needs: what is built for OpenVINO is served, and no more
set -eu

venv="$(cd "$1" && pwd)"
without_torch="${2:-no}"
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
if [ "$without_torch" = yes ]; then
    without "torch, torchvision and what only they import" \
        rm -rf torch torch-* torchgen functorch torchvision torchvision-* torchvision.libs sympy sympy-* isympy* mpmath mpmath-* networkx networkx-* \
            fsspec fsspec-* setuptools setuptools-* _distutils_hack distutils-precedence.pth
    without "OpenVINO for GPUs, and readers of other frameworks' files" \
        sh -c 'cd openvino && rm -rf include libs/cache.json libs/libopenvino_intel_gpu_plugin.so libs/libopenvino_intel_npu* && rm -f \
            libs/libopenvino_jax_* libs/libopenvino_paddle_* libs/libopenvino_pytorch_* libs/libopenvino_tensorflow_*'
    without "languages that no page has" \
        find babel/locale-data -name '*.dat' ! -name 'root.dat' ! -name 'en.dat' ! -name 'en_*' ! -name 'de.dat' ! -name 'de_*' -delete
    without "what type checkers read" find . -name '*.pyi' -delete
fi
without "tests in C++" rm -rf torch/test torch/lib/libjitbackend_test.so torch/lib/libtorchbind_test.so
# torch_shm_manager is looked for by `import torch`.
[ "$without_torch" = yes ] || without "programs for building torch" find torch/bin -type f ! -name torch_shm_manager -delete
without "headers and static libraries, for compilers" \
    sh -c 'rm -rf torch/include torch/share numpy/_core/include && find . -name "*.a" -delete'
without "tests in Python" find . -type d -name tests \
    \( -path './mpmath/*' -o -path './networkx/*' -o -path './numpy/*' -o -path './sympy/*' \) -prune -exec rm -rf {} +

# What was edited is tried: everything that serving imports still imports and computes.
"$venv/bin/python" -W ignore -c '
import flask, limits, numpy, openvino, PIL, pydantic, redis, safetensors, sentry_sdk, sys
if sys.argv[1] != "yes":
    import torch
    torch.nn.Linear(2, 2)(torch.ones(1, 2))' "$without_torch"
printf '  %5s MB  left of %s\n' "$(size "$venv")" "$before"
