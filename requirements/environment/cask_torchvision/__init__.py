"""Lets any script of this environment import torchvision, as app/runtimes/operators.py does for the service.

A ``.pth`` file calls ``install`` at each start of Python, so nothing is imported here before torchvision is asked for.
``kernels`` and ``suppression`` beside this file are copies of those in app/runtimes.
"""

from __future__ import annotations

import sys


class Finder:
    """Finds torchvision as Python would, and prepares for it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """The spec of torchvision, once; None for every other module."""
        if name != "torchvision":
            return None
        sys.meta_path.remove(Finder)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: object) -> None:
            from . import kernels

            kernels.prepare()
            run(module)
            kernels.replace(module)

        spec.loader.exec_module = exec_module
        return spec


def install() -> None:
    """Be asked first for every module that is imported."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
