"""How pods reach tuned weights: on a claim that they mount, or in a store that they fetch from with its keys."""

from finetune_api.base import ObjectRef
from finetune_api.connection import Artifacts
from finetune_api.manifest import Manifest
from finetune_api.names import ARTIFACTS_PREFIX, DATA_PREFIX, TRACKERS_PREFIX
from finetune_api.trackers import Trackers
from finetune_api.trainer import StoreRef
from finetune_api.uris import parse_artifact_uri


def store(uri: str, artifacts: Artifacts) -> StoreRef | None:
    """The folder at `uri` as a store's; None where it is on a claim.

    The endpoint is the connection's of today: it may have moved to another kind of place, and the versions stay.
    """
    return None if parse_artifact_uri(uri).is_claim else StoreRef(uri=uri, endpoint=_endpoint(uri, artifacts))


def environment(
    artifacts: Artifacts | None, data_secret: ObjectRef | None = None, trackers: Trackers | None = None
) -> Manifest:
    """`envFrom` of a container, where there is any: keys of data, store and trackers, each with a prefix of their own.

    The Secrets may call their keys alike. And the trainer takes only what it knows of them: as a variable of the
    process, a key called PYTHONPATH or LD_PRELOAD would be code that no connection has allowed.
    """
    sources: list[Manifest] = []
    if data_secret is not None:
        sources.append({"prefix": DATA_PREFIX, "secretRef": {"name": data_secret.name}})
    if artifacts is not None and artifacts.secret_ref is not None:
        sources.append({"prefix": ARTIFACTS_PREFIX, "secretRef": {"name": artifacts.secret_ref.name}})
    sources.extend(
        {"prefix": TRACKERS_PREFIX, "secretRef": {"name": tracker.secret_ref.name}}
        for tracker in ((trackers.mlflow, trackers.wandb) if trackers is not None else ())
        if tracker is not None and tracker.secret_ref is not None
    )
    return {"envFrom": sources} if sources else {}


def endpoint_flag(uri: str | None, artifacts: Artifacts) -> list[str]:
    """The flag of `finetune-trainer`'s commands that names the address of the store with `uri`."""
    endpoint = _endpoint(uri, artifacts) if uri else None
    return ["--endpoint", endpoint] if endpoint else []


def _endpoint(uri: str, artifacts: Artifacts) -> str | None:
    """The connection's, where it is one of such a store."""
    same_kind = parse_artifact_uri(uri).scheme == parse_artifact_uri(artifacts.uri).scheme
    return artifacts.endpoint_url if same_kind else None
