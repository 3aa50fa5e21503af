"""Readers of /openapi.json made by others: a linter, and a generator whose client predicts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.clients import programs
from tests.servers import ROOT, Server

GENERATED = ROOT / "build" / "clients-generated"


def test_spectral_finds_no_error(description_path: Path, tmp_path: Path) -> None:
    spectral = programs.node_folder() / "spectral"
    rules = tmp_path / "rules.yaml"
    rules.write_text('extends: ["spectral:oas"]\n')

    done = programs.run([spectral, "lint", "--ruleset", rules, "--fail-severity", "error", description_path])

    print(done.stdout)
    assert "(0 errors" in done.stdout or "No results" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_generated_client_predicts(guarded: Server, description_path: Path, sample_path: Path) -> None:
    folder = programs.python_folder()
    shutil.rmtree(GENERATED, ignore_errors=True)
    command = [folder / "openapi-python-client", "generate", "--meta", "none", "--path", description_path]
    # The generator tidies with ruff, which lies beside it.
    made = programs.run([*command, "--output-path", GENERATED / "cask_client"], PATH=f"{folder}:/usr/bin:/bin")
    assert made.returncode == 0, made.stdout + made.stderr
    expected = guarded.ask("/v1/detect?max_results=2", sample_path.read_bytes(), {"Content-Type": "image/jpeg"}).json

    call = [folder / "python", "tests/clients/generated_call.py", guarded.url, sample_path]
    done = programs.run(call, PYTHONPATH=str(GENERATED), CASK_TOKEN=guarded.token)

    print(done.stdout)
    assert done.stdout.splitlines() == [
        f"{each['label']} {each['score']:.3f} {each['box']['x_min']:.1f}"
        for each in expected["results"][0]["detections"]
    ], done.stdout + done.stderr[-3000:]
