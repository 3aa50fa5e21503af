"""Operators' commands beside the real service: what they find, and how it looks in a pipe and to a program."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from tests import servers
from tests.servers import Server

FLASK = Path(sys.executable).with_name("flask")
SAMPLES = servers.ROOT / "models" / "samples"
DETECTOR, CLASSIFIER = "site-safety-detector", "site-safety-classifier"


def run(server: Server, *command: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the settings of the server."""
    known = {"PORT": str(server.port), "STATE_DIR": str(server.state_dir), **settings}
    return subprocess.run(
        [str(word) for word in command],
        cwd=servers.ROOT,
        env=servers.environment("test", **known),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def flask(server: Server, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``flask …`` as an operator does."""
    return run(server, FLASK, *arguments, **settings)


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_predict_prints_a_table_of_what_it_finds(served: Server, sample_path: Path) -> None:
    done = flask(served, "predict", sample_path, "--model", DETECTOR, "--top", "3")

    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == f"{DETECTOR}@1: 1 images"
    assert len(lines) == 3 + 3
    assert lines[3].split()[0] == str(sample_path)


def test_predict_takes_a_folder_and_prints_a_json_object_an_image(served: Server) -> None:
    done = flask(served, "predict", SAMPLES, "--model", CLASSIFIER, "--json", "--top", "1")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["image"] for row in rows] == sorted(str(path) for path in SAMPLES.glob("*.jpg"))
    labels = {Path(row["image"]).stem: row["results"][0]["label"] for row in rows}
    assert all(labels[name] == name for name in ("cone", "helmet", "vest"))


def test_predict_takes_an_image_by_standard_input(served: Server) -> None:
    known = {"PORT": str(served.port), "STATE_DIR": str(served.state_dir)}
    with (SAMPLES / "cone.jpg").open("rb") as image:
        printed = subprocess.check_output(
            [FLASK, "predict", "-", "--model", CLASSIFIER, "--json", "--top", "1"],
            cwd=servers.ROOT,
            env=servers.environment("test", **known),
            stdin=image,
            timeout=60,
        )

    assert json.loads(printed)["results"][0]["label"] == "cone"


def test_predict_prints_csv_and_goes_on_after_an_image_that_is_none(served: Server, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "cone.jpg").write_bytes((SAMPLES / "cone.jpg").read_bytes())

    done = flask(served, "predict", tmp_path, "--model", CLASSIFIER, "--csv", "--threshold", "0.5")

    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == 1
    assert [(Path(row["image"]).name, row["label"]) for row in rows] == [("broken.jpg", ""), ("cone.jpg", "cone")]
    assert rows[0]["error"].startswith("image_unsupported: ")


def test_predict_names_what_is_served_where_the_model_is_not(served: Server) -> None:
    done = flask(served, "predict", SAMPLES, "--model", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("FAIL: The service does not serve nobody.\nNext: It serves: ")
    assert f"{DETECTOR}@1" in done.stderr


def test_predict_says_where_it_looked_when_nothing_runs(served: Server) -> None:
    port = str(servers.free_port())

    done = flask(served, "predict", SAMPLES, PORT=port)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"FAIL: Nothing answers at http://127.0.0.1:{port} (Connection refused).\nNext: ")


def test_predict_of_a_folder_without_images_says_what_images_are_called(served: Server, tmp_path: Path) -> None:
    done = flask(served, "predict", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(f"FAIL: {tmp_path} holds no image.\nNext: Names of images end in ")


# ── model ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_list_tells_what_of_the_store_serves(served: Server) -> None:
    rows = json.loads(flask(served, "model", "list", "--json").stdout)

    assert {row["key"]: (row["role"], row["state"]) for row in rows} == {
        f"{CLASSIFIER}@1": ("active", "ready"),
        f"{DETECTOR}@1": ("active", "ready"),
    }


def test_model_versions_prints_a_table(served: Server) -> None:
    done = flask(served, "model", "versions", DETECTOR)

    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:4] == [f"{DETECTOR}@1", "active", "ready", "100"]


def test_model_versions_of_another_name_fails(served: Server) -> None:
    done = flask(served, "model", "versions", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no model 'nobody'" in done.stderr


# ── a second start ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_service_with_the_same_state_folder_is_refused(served: Server) -> None:
    done = run(served, servers.ROOT / "apache" / "serve.sh", PORT=str(servers.free_port()))

    assert done.returncode == 2
    assert f"Cask runs already with {served.state_dir} (process {served.process.pid})" in done.stderr
    assert served.is_ready()


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_doctor_beside_the_service_finds_it_well(served: Server) -> None:
    done = flask(served, "doctor", "--json")

    said = json.loads(done.stdout)
    found = {row["subject"]: row["found"] for row in said["findings"]}
    assert (done.returncode, said["ok"]) == (0, True), done.stdout
    assert found[f"Port {served.port}"] == f"ours, process {served.process.pid}"
    assert found["Service"].startswith("ready; ")


def test_doctor_with_another_state_folder_sees_that_a_cask_has_the_port(served: Server, tmp_path: Path) -> None:
    said = json.loads(flask(served, "doctor", "--json", STATE_DIR=str(tmp_path / "state")).stdout)

    found = {row["subject"]: row["found"] for row in said["findings"]}
    assert found[f"Port {served.port}"].startswith("a Cask answers there")


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_is_one_screen_for_people_and_json_for_programs(served: Server) -> None:
    shown = flask(served, "status")
    said = json.loads(flask(served, "status", "--json").stdout)

    lines = shown.stdout.splitlines()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert lines[0].startswith(f"  Cask {said['status']['version']} (")
    assert lines[2].split() == ["Ready", "yes"]
    assert any(f"{DETECTOR}@1  active, ready" in line for line in lines)
    assert lines[-1].split(maxsplit=1) == ["Settings", "as in the files"]
    assert set(said) == {"readyz", "status"}
