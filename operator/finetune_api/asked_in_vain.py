"""Fields of a job that change nothing where it goes, though they are allowed.

The operator tells them by an Event, and `finetune-trainer check` by a warning.
"""

from collections.abc import Iterator

from finetune_api.connection import LLMConnectionSpec
from finetune_api.evaluation import Evaluation
from finetune_api.job import FineTuneJobSpec
from finetune_api.uris import parse_artifact_uri

_UNSAID = Evaluation()
"""Of a job that says nothing of it; one for all, as every look at every job compares."""

_IN_THE_NAMESPACE = frozenset({"pvc", "configmap"})
"""Where data are that pods mount; all others they fetch, with keys, through proxies, or by certificates of a Secret."""


def asked_in_vain(spec: FineTuneJobSpec, connection: LLMConnectionSpec | None) -> Iterator[str]:
    """Sentences, each beginning with the field: what nobody is asked, keys that open nothing, services out of reach.

    Args:
        spec: The job's. An adopted one is only observed, and nothing is said of it; code of its own finds all keys in
            its environment.
        connection: The job's, where it is known.
    """
    if spec.adopt is not None:
        return
    if spec.dataset.test is None and spec.evaluation != _UNSAID:
        yield "spec.evaluation: there is no dataset.test, so nothing is evaluated"
    if spec.code is not None:
        return
    files = (spec.dataset.train, spec.dataset.validation, spec.dataset.test)
    schemes = {file.uri.partition("://")[0] for file in files if file is not None}
    if spec.dataset.secret_ref is not None and schemes <= _IN_THE_NAMESPACE and not _asks_others(spec, connection):
        yield "spec.dataset.secretRef: all data are in volumes or ConfigMaps of the namespace, which need no keys"
    local = connection.hugging_face if connection else None
    if local is None or not local.air_gapped:
        return
    if spec.hub_token_secret_ref is not None:
        yield "spec.hubTokenSecretRef: the connection is airGapped, so no hub is asked"
    wandb = spec.trackers.wandb if spec.trackers else None
    if wandb is not None and wandb.base_url is None:
        yield (
            "spec.trackers.wandb: the connection is airGapped, so the public service is not asked; name a server "
            "inside the site in trackers.wandb.baseURL"
        )


def _asks_others(spec: FineTuneJobSpec, connection: LLMConnectionSpec | None) -> bool:
    """Whether the pod that has the data's Secret may ask anybody else: by its proxy, its mirror of the hub, its keys.

    A hub is asked for the base model, a store for artifacts if the connection names no Secret of theirs.
    """
    endpoints = any(one.endpoint is not None for one in spec.evaluation.baselines)
    if connection is None or endpoints or spec.evaluation.judge is not None:
        return True
    local = connection.hugging_face
    if local is None:
        return False
    pushes = spec.artifact.push is not None
    return not local.air_gapped or not parse_artifact_uri(local.artifacts.uri).is_claim or pushes or bool(spec.trackers)
