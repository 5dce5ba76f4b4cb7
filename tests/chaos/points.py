"""Every fault point: each kind of write of the operator's process, with a life that makes it.

Tests compare the list with the calls in the code and with undisturbed lives. Reads are no fault points: a kill before
or after one is a kill between two writes.
"""

from tests.chaos.walk import Fault, faults_at

POINTS: dict[str, tuple[str, ...]] = {
    "succeeds": (
        "create secrets",
        "create leases",
        "patch leases",
        "patch pods",
        "create jobs 1",
        "create events",
        "patch_status finetunejobs Queued",
        "patch_status finetunejobs Validating",
        "create finetunedmodels",
        "patch_status finetunedmodels active 1",
        "patch_status finetunejobs Succeeded",
        "apply modeldeployments",
        "apply services",
        "apply deployments",
        "patch_status modeldeployments Deploying",
        "patch_status modeldeployments Ready",
        "patch_status finetunedmodels ready 1",
        "apply poddisruptionbudgets",
    ),
    "retries": (
        "patch secrets",
        "patch_status finetunejobs Pending",
        "create jobs 2",
    ),
    "fails": (
        "patch_status finetunejobs Failed",
        "delete jobs 1",
        "patch_status finetunejobs Pending",
        "create jobs 2",
    ),
    "is_suspended": (
        "delete jobs 1",
        "patch_status finetunejobs Suspended",
        "create jobs 2",
        "delete finetunejobs",
    ),
    "is_on_nodes": (
        "apply jobsets 1",
        "delete jobsets 1",
        "apply jobsets 2",
    ),
    "is_forgotten": (
        "patch_status finetunedmodels registered",
        "patch_status finetunedmodels ready 1 2",
        "create jobs prune",
        "patch_status finetunedmodels ready 2",
    ),
    "is_connected": ("patch_status llmconnections Ready",),
}

FAULTS = faults_at(POINTS)

QUICK = {
    Fault("succeeds", "create jobs 1", "after"),
    Fault("succeeds", "create finetunedmodels", "after"),
    Fault("succeeds", "patch_status finetunedmodels active 1", "after"),
    Fault("succeeds", "patch_status finetunejobs Succeeded", "before"),
    Fault("succeeds", "apply modeldeployments", "after"),
    Fault("fails", "delete jobs 1", "after"),
    Fault("fails", "create jobs 2", "after"),
    Fault("is_suspended", "delete jobs 1", "before"),
    Fault("is_suspended", "delete finetunejobs", "after"),
    Fault("is_on_nodes", "apply jobsets 1", "after"),
    Fault("is_forgotten", "create jobs prune", "after"),
}
"""Points where work could be done twice, or a version lost. Every test run covers these; the others are marked slow."""
