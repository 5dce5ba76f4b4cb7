"""How pods access tuned weights: on a mounted claim, or in an object store with its credentials."""

from finetune_api.base import ObjectRef
from finetune_api.connection import Artifacts
from finetune_api.manifest import Manifest
from finetune_api.names import ARTIFACTS_PREFIX, DATA_PREFIX, TRACKERS_PREFIX
from finetune_api.trackers import Trackers
from finetune_api.trainer import StoreRef
from finetune_api.uris import parse_artifact_uri


def store(uri: str, artifacts: Artifacts) -> StoreRef | None:
    """The folder at `uri` in an object store; None if it is on a claim.

    Uses the connection's current endpoint, unless the connection now stores artifacts in another kind of location.
    """
    return None if parse_artifact_uri(uri).is_claim else StoreRef(uri=uri, endpoint=_endpoint(uri, artifacts))


def environment(
    artifacts: Artifacts | None, data_secret: ObjectRef | None = None, trackers: Trackers | None = None
) -> Manifest:
    """A container's `envFrom`, if any: credentials of data, store and trackers, each with its own prefix.

    Prefixes keep equal keys of different Secrets apart. They also make the keys harmless, as the trainer reads only
    those it knows: a key named PYTHONPATH or LD_PRELOAD would otherwise run code that no connection has allowed.
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
    """The `finetune-trainer` flag with the endpoint of the store at `uri`."""
    endpoint = _endpoint(uri, artifacts) if uri else None
    return ["--endpoint", endpoint] if endpoint else []


def _endpoint(uri: str, artifacts: Artifacts) -> str | None:
    """The connection's endpoint, if it is of the same kind of store."""
    same_kind = parse_artifact_uri(uri).scheme == parse_artifact_uri(artifacts.uri).scheme
    return artifacts.endpoint_url if same_kind else None
