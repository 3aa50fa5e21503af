"""Write what an image holds as a CycloneDX list, compared with its schema: sbom.py DOCKER IMAGE VERSION OUTPUT.

Runs in build/bundle-venv, which has cyclonedx-python-lib; LOOK runs in the image, whose Python knows its packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Runs in the image, with nothing but Python's own library.
LOOK = r"""
import json, pathlib, subprocess, sys, tomllib
from importlib.metadata import distributions
python = []
for one in distributions(path=[path for path in sys.path if "site-packages" in path]):
    about = one.metadata
    python.append([about["Name"], about["Version"], about["License-Expression"] or about["License"] or ""])
rows = pathlib.Path("/var/lib/dpkg/status").read_text().split("\n\n")
debian = []
for row in rows:
    fields = dict(line.split(": ", 1) for line in row.splitlines() if ": " in line and line[0] != " ")
    if fields.get("Status", "").endswith(" installed"):
        debian.append([fields["Package"], fields["Version"], fields["Architecture"]])
models = []
for path in sorted(pathlib.Path("models").glob("*/*/manifest.toml")):
    about = tomllib.loads(path.read_text())
    digest = about.get("sha256") or about.get("weights", {}).get("sha256", "")
    models.append([path.parent.parent.name, path.parent.name, digest])
release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
print(json.dumps({"python": python, "debian": debian, "models": models, "suite": release["VERSION_CODENAME"]}))
"""
LONGEST_LICENCE = 64


def look(docker: str, image: str) -> dict[str, Any]:
    """What the image holds. Raises CalledProcessError when it does not run."""
    command = [docker, "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", LOOK]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def text(parts: dict[str, Any], image: str, version: str) -> str:
    """The list as JSON, which its schema accepts. Raises ValueError with the place where it does not."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bom = Bom(components=_components(parts))
    bom.metadata.component = Component(name="cask", version=version, type=ComponentType.CONTAINER, bom_ref=image)
    bom.register_dependency(bom.metadata.component, bom.components)
    written: str = JsonV1Dot6(bom).output_as_string(indent=1)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    if fault is not None:
        raise ValueError(f"CycloneDX's schema refuses it: {fault}")
    return written


def _components(parts: dict[str, Any]) -> Iterator[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    make, library = LicenseFactory().make_from_string, ComponentType.LIBRARY
    for name, version, words in parts["python"]:
        # Some write the whole text where its name belongs.
        licences = [make(words)] if words and len(words) <= LONGEST_LICENCE and "\n" not in words else []
        url = PackageURL("pypi", name=name.lower(), version=version)
        yield Component(name=name, version=version, type=library, purl=url, bom_ref=str(url), licenses=licences)
    for name, version, machine in parts["debian"]:
        url = PackageURL("deb", "debian", name, version, {"arch": machine, "distro": parts["suite"]})
        yield Component(name=name, version=version, type=library, purl=url, bom_ref=str(url))
    for name, version, digest in parts["models"]:
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []
        kind = ComponentType.MACHINE_LEARNING_MODEL
        yield Component(name=name, version=version, type=kind, hashes=hashes, bom_ref=f"model:{name}@{version}")


def main(docker: str, image: str, version: str, output: str) -> None:
    """Write it; print how many of each there are."""
    parts = look(docker, image)
    Path(output).write_text(text(parts, image, version), encoding="utf-8")
    kinds = ("python", "debian", "models")
    print(", ".join(f"{len(parts[kind])} {kind}" for kind in kinds))


if __name__ == "__main__":
    main(*sys.argv[1:])
