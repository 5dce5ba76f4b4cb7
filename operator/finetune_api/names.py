"""Names that both sides of an interface must spell alike: group, labels, variables, paths, the report protocol."""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "finetune"

FIELD_MANAGER = "finetune-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
COMPONENT_LABEL = "app.kubernetes.io/component"

JOB_LABEL = f"{GROUP}/job"  # a child of this FineTuneJob (its name, shortened to a label's limit)
JOB_UID_LABEL = f"{GROUP}/job-uid"  # of the FineTuneJob: identifies its Jobs even without owner references
MODEL_LABEL = f"{GROUP}/model"
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
MADE_BY_LABEL = f"{GROUP}/made-by"  # a digest of the connection's pod settings when the Job was created
ATTEMPT_LABEL = f"{GROUP}/attempt"
SERVED_VERSION_LABEL = f"{GROUP}/version"
ABANDON_ANNOTATION = f"{GROUP}/abandon"  # "true": give up what is left at a provider that cannot be reached
WAKE_ANNOTATION = f"{GROUP}/wake"  # a new value wakes a deployment that was stopped because it was idle
DIGEST_ANNOTATION = f"{GROUP}/applied"  # on every object of the operator: a digest of what it applied
PROVIDER_FINALIZER = f"{GROUP}/provider"  # something of this object is outside of the cluster
BEGUN_ANNOTATION = f"{GROUP}/begun-at"  # beside the finalizer: where each connection led, in case status is lost
WEIGHTS_FINALIZER = f"{GROUP}/weights"  # this model's weights are deleted with it
OWNER_ANNOTATION = f"{GROUP}/owner"  # the owner's full name, which may be too long for a label
OWNER_TAG = "finetune-uid"  # on a deployment at a provider, for people and bills: its owner's UID

# A training pod authenticates with a service-account token that only the report server accepts.
TOKEN_AUDIENCE = f"reports.{GROUP}"
REPORT_PATH = "/v1/reports"
REPORT_MAX_BYTES = 64 * 1024
UPLOAD_PATH = "/v1/uploads"
ANSWERS_PATH = "/v1/answers"
UPLOAD_MAX_BYTES = 512 * 1024 * 1024  # per file: the limit of OpenAI and Azure OpenAI
TERMINATION_MESSAGE_MAX_BYTES = 4096  # the kubelet's own limit

# The trainer's environment.
JOB_VARIABLE = "FINETUNE_JOB"  # a TrainerJob as JSON
REPORT_CA_VARIABLE = "FINETUNE_REPORT_CA"  # PEM
GPUS_VARIABLE = "FINETUNE_GPUS"  # how many GPUs the pod requests, if any
SERVE_FLAGS_VARIABLE = "FINETUNE_SERVE_FLAGS"  # flags of `serve`, as a shell reads them
DATA_PREFIX = "FINETUNE_DATA_"  # of variables with the keys of the Secret for a job's data
PUSH_PREFIX = "FINETUNE_PUSH_"
REGISTRY_KEYS_VARIABLE = f"{PUSH_PREFIX}DOCKER_CONFIG"  # a docker config.json
HUB_TOKEN_VARIABLE = f"{PUSH_PREFIX}HUB_TOKEN"
TRACKERS_PREFIX = "FINETUNE_TRACKERS_"  # of variables with the keys of the Secret for a tracker
JUDGE_KEY_VARIABLE = "FINETUNE_JUDGE_KEY"
_ENDPOINT_KEY_VARIABLE = "FINETUNE_ENDPOINT_KEY_"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TOKEN_PATH = "/var/run/secrets/finetune.dev/token"  # noqa: S105 - a path, not a secret
TRUST_PATH = "/var/lib/finetune/trust"
MODEL_CACHE_PATH = "/var/lib/finetune/model-cache"
CLAIMS_PATH = "/var/lib/finetune/claims"  # pvc://CLAIM/PATH is CLAIMS_PATH/CLAIM/PATH
CONFIG_MAPS_PATH = "/var/lib/finetune/configmaps"  # configmap://NAME/KEY is CONFIG_MAPS_PATH/NAME/KEY
SCRATCH_PATH = "/tmp"  # noqa: S108 - an emptyDir of the pod

NODE_VARIABLE = "JOB_COMPLETION_INDEX"  # Kubernetes' own: which pod of an Indexed Job this is
RENDEZVOUS_PORT = 29500  # torchrun's default; each pod has its own address

TRAINER_CONTAINER = "trainer"
SERVER_CONTAINER = "server"
FETCH_CONTAINER = "fetch"  # downloads an artifact before the server starts
BASE_CONTAINER = "base"  # finds an adapter's base model before vLLM starts
ARTIFACT_FOLDER = "model"  # below a job's output folder; in a store model-ATTEMPT
CHECKPOINTS_FOLDER = "checkpoints"  # beside it, while the job runs
MANIFEST = "manifest.json"  # of a complete folder: its checksums, written last
ARTIFACTS_PREFIX = "FINETUNE_ARTIFACTS_"  # of variables with the keys of the Secret for the artifacts' store
OUTPUT_PATH = "/tmp/output"  # noqa: S108 - a job's output folder on the pod's scratch space, if a store keeps it
FETCHED_PATH = "/var/lib/finetune/fetched"  # artifacts that a pod downloaded from a store
BASE_PATH = f"{SCRATCH_PATH}/base"  # link to an adapter's base model, for servers that cannot find it themselves

NO_BACKUP_LABEL = "velero.io/exclude-from-backup"  # Velero's, on objects that must not be restored with their owner
RESTORE_LABEL = "velero.io/restore-name"  # Velero's, on objects that it restored from a backup

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def is_own_label(name: str) -> bool:
    """Whether a pod label is the operator's own: it selects the pods for the operator, Services and budgets."""
    return name.startswith(f"{GROUP}/") or name in {MANAGED_BY_LABEL, COMPONENT_LABEL}


def artifact_folder(attempt: int) -> str:
    """The folder of an attempt's artifact in a store, below the job's; on a volume it is ARTIFACT_FOLDER."""
    return f"{ARTIFACT_FOLDER}-{attempt}"


def endpoint_key_variable(endpoint: str) -> str:
    """The variable with the bearer key of an evaluation endpoint, by the endpoint's name in the job."""
    return _ENDPOINT_KEY_VARIABLE + endpoint.replace("-", "_").upper()
