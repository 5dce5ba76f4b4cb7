"""Renders the chart with the real helm, and the tests' values for it."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from finetune_api.manifest import Manifest
from tests.cluster import binaries

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/finetune-operator"
KUBE_VERSION = "1.34.0"
Values = dict[str, Any]

DIGEST = "sha256:" + "a" * 64
EVERYTHING: Values = {
    "replicas": 3,
    "commonLabels": {"team": "platform"},
    "image": {"digest": DIGEST, "pullSecrets": [{"name": "registry"}]},
    "clusterDomain": "corp.example",
    "logLevel": "DEBUG",
    "settings": {"workers": 4, "kubeQps": 50.5, "resyncSeconds": 3600000, "kubeBurst": 1000000},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"secretRef": {"name": "egress-proxy", "optional": True}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "company-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/company-ca", "readOnly": True}],
    "crds": {"annotations": {"argocd.argoproj.io/sync-options": "ServerSideApply=true"}},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/x"}},
    "reports": {"service": {"annotations": {"a": "b"}}, "tls": {"existingSecret": "reports-tls"}},
    "metrics": {
        "service": {"enabled": True},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "interval": "1m"},
        "prometheusRule": {"enabled": True, "alertLabels": {"team": "ml"}},
        "dashboard": {"enabled": True, "annotations": {"folder": "ML"}},
    },
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 6443, "protocol": "TCP"}]}],
    },
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "deploymentAnnotations": {"reloader.stakater.com/auto": "true"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "hostAliases": [{"ip": "10.0.0.7", "hostnames": ["llm.corp.example"]}],
}

WITHOUT_DEFINITIONS: Values = {"crds": {"install": False}}
"""For tests that do not need the CRDs, which are nine tenths of what is rendered and parsed."""

CASES: dict[str, tuple[str, str, Values]] = {
    # id: release, namespace, values
    "defaults": ("finetune", "finetune-system", {}),
    "everything on": ("finetune", "finetune-system", EVERYTHING),
    "two replicas": ("f", "n", {"replicas": 2}),
    "no replica": ("f", "n", {"replicas": 0}),
    "a long release name": ("r" * 53, "n" * 63, {"replicas": 2, "metrics": {"serviceMonitor": {"enabled": True}}}),
    "a release name with dots": ("team.a-b.c", "n", {}),
    "a release name that YAML reads as a boolean": ("y", "n", {}),
    "a release name that is a number": ("1", "2", {}),
    "a long override": ("f", "n", {"fullnameOverride": "o" * 63}),
    "an override": ("f", "n", {"fullnameOverride": "on", "nameOverride": "null"}),
    "some namespaces": ("f", "n", {"watchNamespaces": ["team-a", "1"]}),
    "everything, some namespaces": ("f", "n", EVERYTHING | {"watchNamespaces": ["team-a"]}),
    "no resources": ("f", "n", {"resources": None}),
    "everything off": (
        "f",
        "n",
        {
            "crds": {"install": False},
            "rbac": {"create": False},
            "serviceAccount": {"create": False, "name": "mine"},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
        },
    ),
    "nobody reads metrics": ("f", "n", {"networkPolicy": {"metricsFrom": []}}),
    "nulls where maps are": (
        "f", "n", {"nodeSelector": None, "affinity": None, "tolerations": None, "extraEnv": None,
                   "extraVolumes": None, "extraVolumeMounts": None, "settings": None},
    ),
}  # fmt: skip


class ChartError(Exception):
    """Helm's error output."""


def helm(*arguments: str, values: Values | None = None) -> str:
    """Run helm without a cluster.

    Raises:
        ChartError: it failed, with its stderr.
    """
    done = subprocess.run(
        [binaries.program("helm"), *arguments, *(["--values", "-"] if values is not None else [])],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ChartError(done.stderr)
    return done.stdout


def render(values: Values, release: str = "finetune", namespace: str = "finetune-system") -> list[Manifest]:
    """All objects of the chart."""
    found: list[Manifest] = json.loads(_rendered(json.dumps(values), release, namespace))
    return found


@cache
def _rendered(values: str, release: str, namespace: str) -> str:
    """Render; cached, with `values` as JSON, as several modules use the same objects."""
    text = helm(
        "template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBE_VERSION,
        values=json.loads(values),
    )  # fmt: skip
    return json.dumps([document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document])


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The only object of a kind with this name suffix."""
    found = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]
