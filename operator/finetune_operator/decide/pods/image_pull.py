"""What helps if a node cannot pull an image, by the messages of containerd, CRI-O and registries. Pure."""

import re

_BY_ITSELF = "It is retried automatically."

_STEPS = (
    (
        "no space left on device",
        "Ask an admin to make room on the node's disk (kubectl describe nodes: DiskPressure), or for nodes with more. "
        f"{_BY_ITSELF}",
    ),
    (
        "toomanyrequests|429 too many requests|pull rate limit",
        f"Wait: the registry takes no more pulls for a while. {_BY_ITSELF} A pull secret (imagePullSecrets in the "
        "connection's podTemplate) raises the limit, and a registry of one's own has none.",
    ),
    (
        "no match for platform|no matching manifest",
        "Ask an admin for an image of the nodes' kind (kubectl get nodes -L kubernetes.io/arch), or to choose nodes "
        f"that fit it by nodeSelector in the connection's podTemplate. {_BY_ITSELF}",
    ),
    (
        "401 unauthorized|403 forbidden|unauthorized:|pull access denied|no basic auth credentials"
        "|authorization failed",
        "Ask an admin for a pull secret in the pod's namespace that may read the image (imagePullSecrets in the "
        f"connection's podTemplate). {_BY_ITSELF}",
    ),
    (
        "no such host|i/o timeout|connection refused|connection reset|tls handshake|is unreachable|no route to host"
        "|server misbehaving|client.timeout|deadline exceeded|proxyconnect|x509:|http response to https client"
        "|5[0-9][0-9] (internal|bad|service|gateway)",
        "Ask an admin: the node does not reach the registry or does not trust it (its DNS, proxy, firewall, "
        f"certificates), or the registry is down. {_BY_ITSELF}",
    ),
    (
        "pull policy of never",
        "Ask an admin to load the image onto the nodes, or to choose another imagePullPolicy in the connection. "
        f"{_BY_ITSELF}",
    ),
    (
        "manifest unknown|: not found|name unknown|couldn't parse image|failed to parse image",
        "Ask an admin to correct the image's name and tag, or to push it: the registry has none of that name, or shows "
        f"none without a pull secret. {_BY_ITSELF}",
    ),
)


def step(said: str) -> str | None:
    """What to do about it; None if the message is not known."""
    return next((step for words, step in _STEPS if re.search(words, said, re.IGNORECASE)), None)
