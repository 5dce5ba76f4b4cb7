"""Which reasons pass by themselves, and which of them the next attempt may not meet again."""

from finetune_api.reasons import Reason

RETRIED = frozenset(
    {
        Reason.OUT_OF_MEMORY,
        Reason.GPU_UNAVAILABLE,
        Reason.EVICTED,
        Reason.NODE_LOST,
        Reason.INTERRUPTED,
        Reason.SIDECAR_FAILED,
        Reason.NO_CAPACITY,
    }
)
"""Failures that the next attempt may not meet again. A data error or a crash is met again: it is not retried."""

INTERRUPTIONS = frozenset({Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED, Reason.GPU_UNAVAILABLE})

CHANGES_BY_ITSELF = frozenset({Reason.PROVIDER_UNAVAILABLE, Reason.RATE_LIMITED, Reason.PROVIDER_BUSY})
"""Obstacles that pass without anybody doing something."""

PASSING = frozenset({Reason.UNSCHEDULABLE, Reason.VOLUME_UNAVAILABLE, Reason.POD_NOT_STARTED})
"""Obstacles of a pod that may pass without anybody doing something: another pod ends, a node gets well."""
