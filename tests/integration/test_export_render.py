"""Every overlay builds with Kustomize, and every object in it is one that Kubernetes knows, strictly.

k8s/overlays/* and those of all other flows --kubectl kustomize--> objects --kubernetes-validate--> two versions
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kustomize_support import EXPORTS, KUBECTL, OVERLAYS, build, make_exports

VERSIONS = ("1.31", "1.36")
CUSTOM = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1"}  # of others' schemas

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl, which has Kustomize in it, is not installed")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_exports(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def seen() -> set[str]:
    return set()


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", EXPORTS)
def test_every_object_is_valid(name: str, overlay: str, exports: dict[str, Path], seen: set[str]) -> None:
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: pip install kubernetes-validate"
    )
    objects = build(exports[name] / overlay)
    assert len(objects) > 8
    for each in objects:
        namespaced = each["kind"] != "Namespace"
        assert not namespaced or each["metadata"]["namespace"], each["metadata"]["name"]
        text = json.dumps(each)
        if each["apiVersion"] not in CUSTOM and text not in seen:
            seen.add(text)  # most objects of an overlay are the base's
            for version in VERSIONS:
                schemas.validate(each, version, strict=True)


@pytest.mark.parametrize("component", ["gateway-api", "qdrant", "qdrant-cluster", "monitoring", "ingress", "keda"])
def test_every_component_fits_on_the_base(component: str, exports: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exports["default"], tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/mine"
    overlay.mkdir()
    text = f"resources: [../../base]\ncomponents: [../../components/{component}]\nnamespace: mine\n"
    (overlay / "kustomization.yaml").write_text(text)
    objects = build(overlay)
    assert len(objects) > len(build(exports["default"] / "base"))


def test_a_changed_flow_changes_the_pods(exports: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exports["default"], tmp_path / "k8s")

    def configurations() -> dict[str, str]:
        build.cache_clear()
        found = {}
        for each in build(tmp_path / "k8s/overlays/local"):
            if each["kind"] in ("Deployment", "StatefulSet"):
                volumes = {item["name"]: item for item in each["spec"]["template"]["spec"]["volumes"]}
                found[each["metadata"]["name"]] = volumes["flow"]["configMap"]["name"]
        return found

    before = configurations()
    with (tmp_path / "k8s/base/flow.yml").open("a") as file:
        file.write("# changed\n")
    after = configurations()
    assert before.keys() == after.keys() == {"gateway", "segmenter", "encoder", "indexer", "ranker"}
    assert all(before[name] != after[name] for name in before)


def test_production_has_the_index_on_a_cluster(exports: dict[str, Path]) -> None:
    objects = {
        f"{each['kind']}/{each['metadata']['name']}": each for each in build(exports["default"] / "overlays/production")
    }
    assert "StatefulSet/indexer" not in objects
    assert objects["Deployment/indexer"]["spec"]["replicas"] == 2
    assert objects["StatefulSet/qdrant"]["spec"]["replicas"] == 3
    assert "replicas" not in objects["Deployment/encoder"]["spec"]
    (flow,) = (
        each for name, each in objects.items() if name.startswith("ConfigMap/flow-") and "flow.yml" in each["data"]
    )
    assert "grpc://qdrant:6334" in flow["data"]["flow.yml"]
    for name in ("gateway", "segmenter", "encoder", "ranker"):
        env = objects[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "QDRANT_API_KEY", "value": "withheld"} in env


def test_keda_takes_the_place_of_the_autoscalers(exports: dict[str, Path]) -> None:
    kinds = [each["kind"] for each in build(exports["everything"] / "overlays/production-keda")]
    assert "HorizontalPodAutoscaler" not in kinds
    assert kinds.count("ScaledObject") == 2


def test_local_is_one_of_everything(exports: dict[str, Path]) -> None:
    objects = build(exports["everything"] / "overlays/local")
    counts = [each["spec"]["replicas"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    assert counts == [1] * 5
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & {each["kind"] for each in objects}
