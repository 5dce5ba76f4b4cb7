"""Initial objects of every cluster: DNS behind its Service, and a default storage class with dynamic provisioning."""

from __future__ import annotations

from typing import Any

from tests.cluster.network import Addresses


def initial_objects(addresses: Addresses) -> dict[str, Any]:
    """All of them as one List for `kubectl apply`."""
    items = [_storage_class(), *_dns_rights(), *_dns_service(addresses)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _storage_class() -> dict[str, Any]:
    """Volumes are folders of the cluster: readable and writable on every node, removed with their claim."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/host-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _dns_rights() -> list[dict[str, Any]]:
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "system:coredns"}}
    return [
        {**role, "kind": "ClusterRole", "rules": rules},
        {
            **role,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
        },
    ]


def _dns_service(addresses: Addresses) -> list[dict[str, Any]]:
    """The usual `kube-dns` Service; its backend is a process of the host, which starts before any node."""
    name, labels = "kube-dns", {"k8s-app": "kube-dns"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
            "spec": {"clusterIP": addresses.dns, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "kube-system", "labels": {**labels, "kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [addresses.host]}],
        },
    ]  # fmt: skip
