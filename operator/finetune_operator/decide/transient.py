"""Which reasons are temporary, and which of them another attempt may avoid."""

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
"""Failures that the next attempt may avoid. A data error or a crash would happen again, so it is not retried."""

INTERRUPTIONS = frozenset({Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED, Reason.GPU_UNAVAILABLE})

TEMPORARY = frozenset({Reason.PROVIDER_UNAVAILABLE, Reason.RATE_LIMITED, Reason.PROVIDER_BUSY})
"""Obstacles that pass unaided."""

PASSING = frozenset({Reason.UNSCHEDULABLE, Reason.VOLUME_UNAVAILABLE, Reason.POD_NOT_STARTED})
"""Obstacles to a pod that may pass unaided: another pod ends, a node recovers."""
