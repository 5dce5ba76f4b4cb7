"""The closed set of reasons in conditions, failures and Events.

A reason is for programs. Its `next_step` is for users, unless the code that found the problem has a better one.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an object is in its state. One word per state that needs an action of its own."""

    # In progress, or as wanted.
    PENDING = "Pending"
    VALIDATING = "Validating"
    QUEUED = "Queued"
    RUNNING = "Running"
    EVALUATING = "Evaluating"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESTORED = "Restored"
    SUCCEEDED = "Succeeded"
    VALID = "Valid"
    READY = "Ready"
    DEPLOYING = "Deploying"
    NO_VERSION = "NoVersion"
    AWAITING_CONFIGURATION = "AwaitingConfiguration"

    # The connection does not allow it.
    CONNECTION_NOT_FOUND = "ConnectionNotFound"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    MODEL_NOT_ALLOWED = "ModelNotAllowed"
    FINE_TUNING_DISABLED = "FineTuningDisabled"
    CODE_NOT_ALLOWED = "CodeNotAllowed"
    PROVIDER_NOT_SUPPORTED = "ProviderNotSupported"
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"

    # A provider outside of the cluster.
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    CREDENTIALS_INVALID = "CredentialsInvalid"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"
    RATE_LIMITED = "RateLimited"
    QUOTA_EXCEEDED = "QuotaExceeded"
    BUCKET_NOT_FOUND = "BucketNotFound"
    ROLE_NOT_USABLE = "RoleNotUsable"
    PROVIDER_BUSY = "ProviderBusy"
    NO_CAPACITY = "NoCapacity"
    FINE_TUNING_CLOSED = "FineTuningClosed"
    MODEL_RETIRED = "ModelRetired"
    MODEL_RETIRES = "ModelRetires"
    PROVIDER_REFUSED = "ProviderRefused"
    PROVIDER_FAILED = "ProviderFailed"
    CANCELLED_AT_PROVIDER = "CancelledAtProvider"
    DELETED_AT_PROVIDER = "DeletedAtProvider"
    BUDGET_EXCEEDED = "BudgetExceeded"
    PRICE_UNKNOWN = "PriceUnknown"

    # The manifest or the data is wrong.
    SPEC_INVALID = "SpecInvalid"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    ACCESS_DENIED = "AccessDenied"
    STORE_UNAVAILABLE = "StoreUnavailable"

    # The base model.
    MODEL_NOT_IN_CACHE = "ModelNotInCache"
    MODEL_UNUSABLE = "ModelUnusable"

    # The training run.
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_UNAVAILABLE = "GPUUnavailable"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    INTERRUPTED = "Interrupted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    TRAINING_DIVERGED = "TrainingDiverged"
    CODE_FAILED = "CodeFailed"
    ARTIFACT_FAILED = "ArtifactFailed"
    PUSH_FAILED = "PushFailed"
    TRACKER_FAILED = "TrackerFailed"
    TRAINER_CRASHED = "TrainerCrashed"
    TRAINER_SILENT = "TrainerSilent"

    # Pods that do not start.
    IMAGE_PULL_FAILED = "ImagePullFailed"
    POD_REJECTED = "PodRejected"
    WRITE_REFUSED = "WriteRefused"
    JOB_SET_MISSING = "JobSetMissing"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    POD_NOT_STARTED = "PodNotStarted"
    SIDECAR_FAILED = "SidecarFailed"

    # Models and deployments.
    MODEL_NOT_FOUND = "ModelNotFound"
    VERSION_NOT_FOUND = "VersionNotFound"
    MODEL_FULL = "ModelFull"
    DEPLOYMENT_FAILED = "DeploymentFailed"
    NAME_CONFLICT = "NameConflict"
    EXPIRED = "Expired"
    DEPLOYMENT_NOT_FOUND = "DeploymentNotFound"
    ATTACHED_DIFFERS = "AttachedDiffers"
    IDLE = "Idle"
    IN_USE = "InUse"
    BILLED_WHILE_IDLE = "BilledWhileIdle"
    USAGE_UNKNOWN = "UsageUnknown"


NEXT_STEP: dict[Reason, str] = {
    Reason.AWAITING_CONFIGURATION: "Write the block that the message names: it is billed from then on. Or set "
    "deployment.mode: Manual on the FineTunedModel.",
    Reason.RESTORED: "If it is to run, perhaps again, remove its label velero.io/restore-name; else delete it. "
    "A restore with --status-include-resources avoids this.",
    Reason.CONNECTION_NOT_FOUND: "Ask an admin to create that LLMConnection, as it was if it was deleted: the rest "
    "follows automatically.",
    Reason.NAMESPACE_NOT_ALLOWED: "Ask an admin to let the connection's namespaceSelector match this namespace.",
    Reason.MODEL_NOT_ALLOWED: "Choose a base model that the connection allows, or ask an admin to allow this one.",
    Reason.FINE_TUNING_DISABLED: "Ask an admin to set fineTuning.enabled on the connection, or use another one.",
    Reason.CODE_NOT_ALLOWED: "Remove spec.code, or ask an admin to set fineTuning.allowCode on the connection.",
    Reason.PROVIDER_NOT_SUPPORTED: "Use a connection with a huggingFace, openAI, azureOpenAI, bedrock or sageMaker "
    "block.",
    Reason.SECRET_NOT_FOUND: "Ask an admin to create the Secret, with all its keys, in the operator's own namespace.",
    Reason.CREDENTIALS_INVALID: "Ask an admin to correct or renew the keys in the connection's Secret; it is read "
    "again automatically.",
    Reason.PROVIDER_UNAVAILABLE: "Nothing to do: the provider is asked again. If it lasts, check the "
    "addresses in the LLMConnection (baseURL, endpoint, endpoints), and the egress of the operator's pod.",
    Reason.RATE_LIMITED: "Nothing to do: the call is made again after the pause that the provider asks for.",
    Reason.QUOTA_EXCEEDED: "Raise the quota or the credit of the provider's account, or wait for other jobs to end.",
    Reason.BUCKET_NOT_FOUND: "Ask an admin to create the bucket, in the connection's region, or to correct s3.bucket.",
    Reason.ROLE_NOT_USABLE: "Ask an admin to correct roleARN: its trust policy must let the service assume it, and the "
    "operator's identity needs iam:PassRole for it.",
    Reason.PROVIDER_BUSY: "Nothing to do: it is tried again. If it lasts, end at the provider what the message names.",
    Reason.NO_CAPACITY: "Wait and set spec.retryNonce, or apply the job under a new name with another "
    "resources.instanceType.",
    Reason.FINE_TUNING_CLOSED: "Use a connection to another provider, or one with a huggingFace block.",
    Reason.MODEL_RETIRED: "Choose a base model that the provider still runs.",
    Reason.MODEL_RETIRES: "Tune a newer base model before that day.",
    Reason.PROVIDER_REFUSED: "Correct what the message names, and apply the job under a new name.",
    Reason.PROVIDER_FAILED: "Correct what the message names, and apply the job under a new name; if it names "
    "nothing of yours, set spec.retryNonce to pay for another attempt.",
    Reason.CANCELLED_AT_PROVIDER: "Set spec.retryNonce to start it again, from the beginning and at full price.",
    Reason.DELETED_AT_PROVIDER: "Apply the job under a new name, or set spec.retryNonce, if it is still wanted.",
    Reason.BUDGET_EXCEEDED: "Raise budget.maxCost, or use fewer rows or epochs, and apply the job under a new name.",
    Reason.PRICE_UNKNOWN: "Ask an admin to add the model to the chart's providerCatalogue, or remove budget.",
    Reason.ENDPOINT_NOT_ALLOWED: "Leave the endpoint out of evaluation.baselines, or the judge out of evaluation, or "
    "ask an admin to add its URL to fineTuning.allowedEndpoints of the connection.",
    Reason.SPEC_INVALID: "Correct the field and apply the job under a new name.",
    Reason.DATASET_INVALID: "Correct the rows, or map the columns with spec.dataset.columns, and apply the job under "
    "a new name. `finetune-trainer check -f job.yaml` shows the same verdict without a cluster.",
    Reason.DATASET_NOT_FOUND: "Check the uri, and that the volume or ConfigMap is in the job's own namespace.",
    Reason.ACCESS_DENIED: "Check the Secret that the job names, and the rights of its keys.",
    Reason.STORE_UNAVAILABLE: "Try again by setting spec.retryNonce when the store answers.",
    Reason.MODEL_NOT_IN_CACHE: "Put the model into the connection's model cache with `finetune-trainer cache` "
    "(examples/model-cache), or check the spelling of spec.baseModel.",
    Reason.MODEL_UNUSABLE: "Choose a causal language model, or a T5, BART or Pegasus, that transformers can load.",
    Reason.INSUFFICIENT_MEMORY: "Ask for more memory, or change what the message names, and apply the job under a new "
    "name.",
    Reason.OUT_OF_MEMORY: "Ask for more memory in spec.resources or a larger GPU, or lower microBatchSize or "
    "maxSequenceLength.",
    Reason.GPU_UNAVAILABLE: "Ask an admin to look at the node's GPUs and driver (nvidia-smi, dmesg), and whether the "
    "connection's podTemplate lacks a runtimeClassName; then set spec.retryNonce.",
    Reason.EVICTED: "Set spec.retryNonce to resume from the last checkpoint when the node has room.",
    Reason.NODE_LOST: "Set spec.retryNonce to resume from the last checkpoint.",
    Reason.INTERRUPTED: "Set spec.retryNonce to resume from the last checkpoint.",
    Reason.DEADLINE_EXCEEDED: "Apply the job under a new name with a larger activeDeadlineSeconds.",
    Reason.TRAINING_DIVERGED: "Lower hyperparameters.learningRate and apply the job under a new name.",
    Reason.CODE_FAILED: "Read failure.logTail, correct the code in its ConfigMap and set spec.retryNonce. "
    "`finetune-trainer run --code` runs it without a cluster.",
    Reason.ARTIFACT_FAILED: "Make room on the volume of the connection's artifacts, then set spec.retryNonce.",
    Reason.PUSH_FAILED: "The version exists. Correct what the message names, and push it with `finetune-trainer push`.",
    Reason.TRACKER_FAILED: "The training continues, and metrics.jsonl in the artifact has everything. Correct the "
    "Secret or the address that spec.trackers names: the next attempt, or the next job, is logged there.",
    Reason.TRAINER_CRASHED: "Read failure.logTail; if the job is not at fault, report it as a bug.",
    Reason.TRAINER_SILENT: "Read the pod's log. If it hangs, delete the pod: the next attempt resumes from the last "
    "checkpoint. If it works, make sure that the pod reaches the operator's report port.",
    Reason.IMAGE_PULL_FAILED: "Ask an admin to check the connection's image and its pull secret.",
    Reason.POD_REJECTED: "Ask an admin to let the pod pass the policy or webhook that the message names, or to correct "
    "the connection's podTemplate; it is retried automatically.",
    Reason.WRITE_REFUSED: "Ask an admin to let the operator's writes pass the policy or webhook that the message "
    "names; they are tried again.",
    Reason.JOB_SET_MISSING: "Ask an admin to install JobSet; the job then continues automatically. Or apply it under "
    "a new name with resources.nodes: 1.",
    Reason.CONTAINER_CONFIG_INVALID: "Create the Secret, ConfigMap or volume that the message names in this namespace: "
    "the pod continues automatically. If only the name is wrong, correct it; a job is then applied under a new name.",
    Reason.UNSCHEDULABLE: "Wait for room (kubectl describe nodes shows what nodes have, and what of it is requested), "
    "or ask for fewer resources: a pod that asks for more than any node has waits forever.",
    Reason.VOLUME_UNAVAILABLE: "End what else uses the volume, or ask an admin to repair it (kubectl describe pvc); "
    "the pod continues automatically.",
    Reason.POD_NOT_STARTED: "Ask an admin to look at the pod's node; kubectl delete pod has it rescheduled.",
    Reason.SIDECAR_FAILED: "Ask an admin to repair that container, or to keep it out of these pods by labels or "
    "annotations in the connection's podTemplate.",
    Reason.MODEL_NOT_FOUND: "Name a FineTunedModel of this namespace (kubectl get ftm).",
    Reason.VERSION_NOT_FOUND: "Name a version that status.versions of the FineTunedModel lists.",
    Reason.MODEL_FULL: "Lower spec.historyLimit of the FineTunedModel, or delete ModelDeployments that name old "
    "versions; the result then becomes a version automatically.",
    Reason.DEPLOYMENT_FAILED: "Correct what the message names; the version that served before keeps serving.",
    Reason.EXPIRED: "Set spec.retryNonce to deploy it again; it is billed from then on.",
    Reason.DEPLOYMENT_NOT_FOUND: "Write the name of a deployment that the provider lists into spec.attach.id.",
    Reason.ATTACHED_DIFFERS: "Set spec.version to what it serves, attach another one, or remove spec.attach to have "
    "one made.",
    Reason.IDLE: "To bring it back: kubectl annotate md NAME --overwrite finetune.dev/wake=$(date +%s).",
    Reason.BILLED_WHILE_IDLE: "Delete the object, or set spec.idle with action Delete, if nobody needs it.",
    Reason.USAGE_UNKNOWN: "Let the connection's identity read the provider's usage figures; until then nothing is "
    "stopped for being idle.",
    Reason.NAME_CONFLICT: "Rename the object, or delete the one that has its name.",
}
