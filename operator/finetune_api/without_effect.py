"""Fields of a job that are valid but have no effect with its connection.

The operator reports them in an Event, and `finetune-trainer check` as a warning.
"""

from collections.abc import Iterator

from finetune_api.connection import LLMConnectionSpec
from finetune_api.evaluation import Evaluation
from finetune_api.job import FineTuneJobSpec
from finetune_api.uris import parse_artifact_uri

_DEFAULT_EVALUATION = Evaluation()
"""The default evaluation; created once, as every reconcile of a job compares with it."""

_IN_THE_NAMESPACE = frozenset({"pvc", "configmap"})
"""Schemes of data that pods mount. Other data are fetched, with keys, proxies or certificates from a Secret."""


def fields_without_effect(spec: FineTuneJobSpec, connection: LLMConnectionSpec | None) -> Iterator[str]:
    """Sentences, each beginning with the field: unused settings, keys that are not needed, services out of reach.

    Args:
        spec: of the job. For an adopted one, which is only observed, there are none. Custom code finds all keys in its
            environment.
        connection: of the job, if known.
    """
    if spec.adopt is not None:
        return
    if spec.dataset.test is None and spec.evaluation != _DEFAULT_EVALUATION:
        yield "spec.evaluation: there is no dataset.test, so nothing is evaluated"
    if spec.code is not None:
        return
    files = (spec.dataset.train, spec.dataset.validation, spec.dataset.test)
    schemes = {file.uri.partition("://")[0] for file in files if file is not None}
    if (
        spec.dataset.secret_ref is not None
        and schemes <= _IN_THE_NAMESPACE
        and not _calls_other_services(spec, connection)
    ):
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


def _calls_other_services(spec: FineTuneJobSpec, connection: LLMConnectionSpec | None) -> bool:
    """Whether the pod that gets the data's Secret may call other services, which may need its proxy, mirror or keys.

    It downloads the base model from a hub, and uses a store for artifacts if the connection names no Secret for it.
    """
    endpoints = any(one.endpoint is not None for one in spec.evaluation.baselines)
    if connection is None or endpoints or spec.evaluation.judge is not None:
        return True
    local = connection.hugging_face
    if local is None:
        return False
    pushes = spec.artifact.push is not None
    return not local.air_gapped or not parse_artifact_uri(local.artifacts.uri).is_claim or pushes or bool(spec.trackers)
