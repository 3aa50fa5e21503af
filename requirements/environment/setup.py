"""Puts the .pth file beside the modules: setuptools has no setting for that."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStartFile(build_py):
    """As usual, and the file that Python runs at its start."""

    def run(self) -> None:
        """Build the modules, then copy the file."""
        super().run()
        self.copy_file("cask_torchvision.pth", str(Path(self.build_lib, "cask_torchvision.pth")), preserve_mode=False)


setup(cmdclass={"build_py": BuildWithStartFile})
