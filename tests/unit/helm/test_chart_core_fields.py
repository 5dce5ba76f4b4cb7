"""What the chart hands on to its pod and NetworkPolicy as it stands: the schema knows the fields that Kubernetes knows.

The API server passes over one that it does not know, with a warning at most: a misspelt podSelector of a peer lets in a
whole namespace, a misspelt effect tolerates all of them.
"""

import json
import re
from typing import Any

from kubernetes import client

from tests.unit.helm.charts import CHART

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OF_CORE = {
    ("affinity",): "V1Affinity",
    ("extraEnv", "items", "properties", "valueFrom"): "V1EnvVarSource",
    ("extraEnvFrom", "items"): "V1EnvFromSource",
    ("hostAliases", "items"): "V1HostAlias",
    ("tolerations", "items"): "V1Toleration",
    ("topologySpreadConstraints", "items"): "V1TopologySpreadConstraint",
    ("podSecurityContext",): "V1PodSecurityContext",
    ("securityContext",): "V1SecurityContext",
    ("extraVolumeMounts", "items"): "V1VolumeMount",
    ("extraVolumes", "items", "properties", "configMap"): "V1ConfigMapVolumeSource",
    ("extraVolumes", "items", "properties", "csi"): "V1CSIVolumeSource",
    ("extraVolumes", "items", "properties", "secret"): "V1SecretVolumeSource",
    ("networkPolicy", "properties", "metricsFrom", "items"): "V1NetworkPolicyPeer",
    ("networkPolicy", "properties", "egress", "items"): "V1NetworkPolicyEgressRule",
}
SIMPLE = {"str": "string", "int": "integer", "bool": "boolean"}


def defined(model: str, found: dict[str, Any]) -> dict[str, str]:
    """A reference to the schema of a model of Kubernetes' own client; `found` gets it, and those that it names."""
    if model not in found:
        kind = getattr(client, model)
        found[model] = {"type": ["object", "null"], "additionalProperties": False}
        fields = {kind.attribute_map[name]: field(of, found) for name, of in kind.openapi_types.items()}
        found[model]["properties"] = dict(sorted(fields.items()))
    return {"$ref": f"#/definitions/{model}"}


def field(of: str, found: dict[str, Any]) -> dict[str, Any]:
    """Of one field. Each may be null, by which Helm takes away what the chart's own values say."""
    if listed := re.fullmatch(r"List\[(.+)\]", of):
        return {"type": ["array", "null"], "items": field(listed[1], found)}
    if of in SIMPLE:
        return {"type": [SIMPLE[of], "null"]}
    if of == "Dict[str, str]":
        return {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
    return defined(of, found) if hasattr(client, of) else {}


def core() -> tuple[dict[tuple[str, ...], dict[str, str]], dict[str, Any]]:
    found = dict[str, Any]()
    return {place: defined(model, found) for place, model in OF_CORE.items()}, dict(sorted(found.items()))


def test_the_schema_knows_the_fields_that_kubernetes_knows() -> None:
    places, definitions = core()
    for place, expected in places.items():
        part = SCHEMA["properties"]
        for step in place:
            part = part[step]
        assert expected in (part, *part.get("allOf", ())), place
    assert {name: SCHEMA["definitions"].get(name) for name in definitions} == definitions


def test_a_volume_has_one_source_that_kubernetes_knows() -> None:
    """Of one without a known source the API server makes an empty folder: the operator would find no bundle in it."""
    volume = SCHEMA["properties"]["extraVolumes"]["items"]
    assert set(volume["properties"]) == set(client.V1Volume.attribute_map.values())
    assert (volume["minProperties"], volume["maxProperties"], volume["additionalProperties"]) == (2, 2, False)
