"""Inputs for building pods."""

from typing import Any

from tests.unit.finetune_operator.decide.given import connection

TEMPLATE = {
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "runtimeClassName": "nvidia",
    "priorityClassName": "low",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "labels": {"team": "a", "app.kubernetes.io/managed-by": "somebody"},
    "annotations": {"note": "x"},
    "queueName": "q",
    "resources": {"limits": {"cpu": 2}},
}


def hugging_face(**fields: Any) -> Any:
    return connection(fields).hugging_face


def restricted(spec: dict[str, Any]) -> None:
    """Assert the restricted Pod Security Standard and our further guarantees, field by field."""
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["runAsGroup"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for field in ("hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"):
        assert field not in spec
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in own
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    allowed = {"emptyDir", "persistentVolumeClaim", "configMap", "secret", "projected"}
    assert all((volume.keys() - {"name"}) <= allowed for volume in spec["volumes"])
