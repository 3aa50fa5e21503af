"""The manifests of docker/kubernetes: rendered by kubectl, right by Kubernetes' schemas, fit for «restricted»."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import ROOT, secret_files, sources

FOLDER = ROOT / "docker" / "kubernetes"
# Overlay → the environment whose settings it takes.
OVERLAYS = {"dev": "dev", "prod": "prod", "one-node": "prod"}
# The newest of Kubernetes whose schemas the library brings, and the oldest that Kubernetes' makers still mend.
VERSIONS = ("1.33", "1.36")
# Of the Prometheus Operator, whose schema the library does not have.
FOREIGN_KINDS = {"ServiceMonitor"}


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    """The objects of each overlay."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl here: Kubernetes' own packages have it (Debian's is too old)")
    command = [program, "kustomize", "--load-restrictor", "LoadRestrictionsNone"]
    found = {}
    for overlay in OVERLAYS:
        done = subprocess.run([*command, FOLDER / "overlays" / overlay], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        found[overlay] = list(yaml.safe_load_all(done.stdout))
    return found


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_its_schema(rendered: dict[str, Any], overlay: str, version: str) -> None:
    library = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here: make install")
    for each in rendered[overlay]:
        if each["kind"] not in FOREIGN_KINDS:
            library.validate(each, version, strict=True)


def test_a_wrong_field_would_be_found(rendered: dict[str, Any]) -> None:
    library = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here: make install")
    deployment = of_kind(rendered["prod"], "Deployment")

    with pytest.raises(library.ValidationError):
        library.validate({**deployment, "spec": {**deployment["spec"], "replica": 2}}, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_fit_for_the_restricted_profile(rendered: dict[str, Any], overlay: str) -> None:
    """The rules of Pod Security Admission, each that our pods could break."""
    pod = of_kind(rendered[overlay], "Deployment")["spec"]["template"]["spec"]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }

    assert not any(pod.get(each) for each in ("hostNetwork", "hostPID", "hostIPC", "initContainers"))
    assert all(set(each) - {"name"} <= allowed for each in pod["volumes"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context
        assert not any("hostPort" in port for port in container["ports"])
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_those_of_the_env_file(rendered: dict[str, Any], overlay: str) -> None:
    maps = {
        each["metadata"]["name"].rpartition("-")[0]: each["data"] for each in rendered[overlay][:] if "data" in each
    }
    lines = (ROOT / "env" / f"{OVERLAYS[overlay]}.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if sources.PLAIN_LINE.fullmatch(line))

    assert maps["cask-env"] == given
    assert maps["cask-settings"]["STATE_STORE"] == ("disk" if overlay == "one-node" else "redis")
    pod = of_kind(rendered[overlay], "Deployment")["spec"]["template"]["spec"]
    order = [each["configMapRef"]["name"].rpartition("-")[0] for each in pod["containers"][0]["envFrom"]]
    assert order == ["cask-env", "cask-settings"]


def test_one_node_keeps_its_state_and_nothing_that_belongs_to_a_pod(rendered: dict[str, Any]) -> None:
    pod = of_kind(rendered["one-node"], "Deployment")["spec"]["template"]["spec"]
    claim = of_kind(rendered["one-node"], "PersistentVolumeClaim")
    (container,) = pod["containers"]
    volumes = {each.pop("name"): each for each in pod["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}

    assert volumes[mounts["/var/lib/cask"]] == {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    # Two pods share the claim while one takes the other's place.
    assert list(volumes[mounts["/var/lib/cask/run"]]) == ["emptyDir"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_stop_has_time_and_probes_name_a_host_that_is_answered(rendered: dict[str, Any]) -> None:
    objects = rendered["prod"]
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["terminationGracePeriodSeconds"] > 30 + 5
    assert "kill -WINCH 1" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
    for probe, path in {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}.items():
        asked = container[f"{probe}Probe"]["httpGet"]
        assert (asked["path"], asked["httpHeaders"]) == (path, [{"name": "Host", "value": "localhost"}])
    labels = of_kind(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = of_kind(objects, kind)["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()


def test_secrets_are_read_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    """Links to a folder of links, which is replaced whole."""
    (tmp_path / "..2026_11_30").mkdir()
    (tmp_path / "..2026_11_30" / "redis_url").write_text("redis://redis.example:6379/0\n")
    (tmp_path / "..data").symlink_to("..2026_11_30")
    (tmp_path / "redis_url").symlink_to("..data/redis_url")

    found = secret_files.below(tmp_path, {})

    assert found["redis_url"].value == "redis://redis.example:6379/0"
