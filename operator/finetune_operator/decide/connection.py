"""What an LLMConnection's status says."""

from datetime import datetime

from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import merge, ready, stalled


def decide(
    spec: LLMConnectionSpec | None, spec_error: str, status: LLMConnectionStatus, *, generation: int, now: datetime
) -> LLMConnectionStatus:
    """Ready where jobs can use it. A connection to this cluster has no credentials to check."""
    if spec is None:
        facts, provider, models = stalled(Reason.SPEC_INVALID, spec_error), status.provider, status.models
    else:
        provider, models = spec.provider, spec.fine_tuning.allowed_models
        if spec.hugging_face is None:
            facts = stalled(Reason.PROVIDER_NOT_SUPPORTED, f"this release does not use {provider} connections")
        elif not spec.fine_tuning.enabled:
            facts = ready(Reason.FINE_TUNING_DISABLED, "deployments are served; new jobs are refused")
        elif spec.namespace_selector is None:
            facts = ready(Reason.READY, "no namespace may use it: spec.namespaceSelector is not set")
        else:
            facts = ready(Reason.READY, "jobs may use it")
    return status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": merge(status.conditions, facts, generation=generation, now=now),
            "provider": provider,
            "models": models,
        }
    )
