"""LLMConnection: where models may be tuned, with which credentials and images, and by which namespaces."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from finetune_api.aws import Bedrock, SageMaker
from finetune_api.azure import AzureOpenAI, AzureResolved
from finetune_api.base import (
    CLOSED,
    NO_PLACEHOLDER,
    ApiModel,
    ApiRoot,
    CloudUrl,
    Conditions,
    ConfigMapKeyRef,
    LabelKey,
    Labels,
    LabelValue,
    Never,
    ObjectName,
    ObjectRef,
    ReadBy,
    ResourceRequirements,
    SecretKeyRef,
    Timestamp,
    rules,
    shaped,
)
from finetune_api.uris import (
    ARTIFACT_HELP,
    ARTIFACT_PLACE,
    NO_QUERY_HELP,
    ODD_CHARACTERS,
    ODD_CHARACTERS_HELP,
    STEPS_UP,
    parse_artifact_uri,
)

OpenObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
Glob = Annotated[
    str,
    Field(min_length=1, max_length=256),
    shaped(r"^[^\s^$\\()|]*$", "write a glob, such as meta-llama/*, without white space, and not a regular expression"),
    Never(
        "(^|/)[.]",
        "no part of a model's name begins with a dot: write a glob, such as meta-llama/*, not a regular expression",
    ),
]
EndpointGlob = Annotated[
    str,
    Field(max_length=512),
    shaped("^https?://[^/*?]+/", "write scheme and host in full and a path, such as https://HOST/*"),
]
ImageName = Annotated[
    str,
    Field(min_length=1, max_length=512),
    shaped(
        r"^([^/\s\"\x27]*[.:][^/\s\"\x27]*/)?[a-z0-9][^\sA-Z:@\"\x27]*(:[^\s/:@\"\x27]+)?(@[^\s\"\x27]+)?$",
        "write an image alone, such as registry.example.com/name:1.0, its name in lower case, without https://, "
        "quotation marks and white space",
    ),
    NO_PLACEHOLDER,
]

PLACE_LENGTH = 512
THIS_CLUSTER = "this cluster"
_BUCKET = ", s3://"
PROVIDERS = ("huggingFace", "openAI", "azureOpenAI", "bedrock", "sageMaker")
_COUNT = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in PROVIDERS)
_KEPT = " && ".join(f"has(self.{name}) == has(oldSelf.{name})" for name in PROVIDERS)


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector, as in meta/v1."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                "In and NotIn need values, Exists and DoesNotExist have none",
            )
        )
    )
    key: LabelKey = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="Relation of key and values.")
    values: Annotated[list[LabelValue], Field(max_length=64)] | None = Field(
        None, description="Values, for In and NotIn."
    )


class LabelSelector(ApiModel):
    """A label selector, as in meta/v1. An empty one matches everything, so a misspelt one must not become empty.

    `matchLabels: {finetune:yes}`, without a space, is a name without a value, which kubectl drops.
    """

    model_config = ConfigDict(
        json_schema_extra={
            CLOSED: True,
            **rules(
                (
                    "(!has(self.matchLabels) || self.matchLabels.size() > 0) && "
                    "(!has(self.matchExpressions) || self.matchExpressions.size() > 0)",
                    "nothing is below matchLabels or matchExpressions, which would be every namespace: write a label "
                    "with a space after its colon, or namespaceSelector: {} if every namespace is meant",
                )
            ),
        }
    )
    match_labels: Labels | None = Field(
        None, description='Labels that a namespace must have, for example {finetune: "yes"}.'
    )
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=16)] | None = Field(
        None, description="Label expressions that a namespace must fulfil."
    )


class FineTuningPolicy(ApiModel):
    """Who may tune what. What is not restricted is allowed, so a misspelt restriction must not be dropped."""

    model_config = ConfigDict(json_schema_extra={CLOSED: True})
    enabled: bool = Field(
        True,
        description="Whether new jobs are accepted. If false, they fail with reason "
        "FineTuningDisabled; serving continues.",
    )
    allowed_models: Annotated[list[Glob], Field(max_length=256)] | None = Field(
        None, description="Glob patterns of allowed base models, for example meta-llama/*. Absent: all."
    )
    allow_code: bool = Field(
        False,
        description="Whether jobs may run their own Python (spec.code); if false, they fail with reason "
        "CodeNotAllowed. It runs with the rights of the training pod: its volumes, its network, the Secrets that the "
        "job names; at SageMaker with those of roleARN, unless networkIsolation is set.",
    )
    allowed_endpoints: Annotated[list[EndpointGlob], Field(max_length=64)] | None = Field(
        None,
        description="Glob patterns of URLs that endpoints and judges of evaluations may have, for example "
        "https://HOST/*: test data are sent there. Services of the cluster are always allowed. Absent: all; if "
        "airGapped, none.",
    )


class LocalReference(ApiModel):
    """A Secret with registry credentials, in the job's namespace."""

    name: ObjectName = Field(description="Name of the Secret: a-z, 0-9, - and . only.")


class PodTemplate(ApiModel):
    """Settings that the connection adds to every training and serving pod."""

    resources: ResourceRequirements | None = Field(
        None,
        description="Resources of the container; what a job or deployment sets itself takes precedence. Default: none; "
        "in checkPod requests {cpu: 100m, memory: 256Mi} and limits {memory: 1Gi}.",
    )
    node_selector: Labels | None = Field(None, description="Labels of the nodes on which the pods may run.")
    tolerations: Annotated[list[OpenObject], Field(max_length=32)] | None = Field(
        None, description="Tolerations, as in core/v1, for example [{key: nvidia.com/gpu, operator: Exists}]."
    )
    affinity: OpenObject | None = Field(None, description="Affinity, as in core/v1.")
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the pods, for example nvidia. Default: that of the node."
    )
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the pods. Default: the cluster's."
    )
    queue_name: Annotated[ObjectName, Field(max_length=63)] | None = Field(
        None,
        description="Kueue LocalQueue of the job's namespace in which its pods wait (label "
        "kueue.x-k8s.io/queue-name). Absent: no queue.",
    )
    service_account_name: ObjectName | None = Field(
        None,
        description="ServiceAccount of the job's namespace, for example for the identity at a cloud's storage. "
        "Default: the one called default.",
    )
    image_pull_secrets: Annotated[list[LocalReference], Field(max_length=8)] | None = Field(
        None, description="Secrets of the job's namespace with registry credentials."
    )
    ca_bundle_ref: ConfigMapKeyRef | None = Field(
        None,
        description="ConfigMap of the job's namespace with a PEM bundle of the CA certificates that the pods "
        "trust, for stores, hubs, registries and trackers with a private CA. It replaces the image's bundle: include "
        "public CAs if both are needed. Default: the image's bundle.",
    )
    labels: Labels | None = Field(
        None,
        description="Additional labels of the pods. Those of finetune.dev, app.kubernetes.io/managed-by and "
        "app.kubernetes.io/component are the operator's own, and left out.",
    )
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] | None = Field(
        None, description="Additional annotations of the pods."
    )


class ModelCache(ApiModel):
    """A volume with base models, so that pods need not download them."""

    volume: Annotated[OpenObject, Field(min_length=1, max_length=1)] = Field(
        description="Any core/v1 volume source, without a name, for example {persistentVolumeClaim: {claimName: "
        "model-cache}}. A persistentVolumeClaim is that of the job's namespace."
    )


class Artifacts(ApiModel):
    """Where checkpoints and tuned weights are stored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.uri.startsWith('pvc://') || (!has(self.endpointURL) && !has(self.secretRef))",
                "artifacts.endpointURL and artifacts.secretRef are for object stores: a claim needs neither",
            ),
        )
    )
    uri: Annotated[
        str,
        Field(min_length=1, max_length=512),
        shaped(ARTIFACT_PLACE, ARTIFACT_HELP),
        Never(STEPS_UP, "a path may not have a '..' segment: write the path without it"),
        Never("[?#]", NO_QUERY_HELP),
        NO_PLACEHOLDER,
        ReadBy(ODD_CHARACTERS, ODD_CHARACTERS_HELP, parse_artifact_uri),
    ] = Field(
        description="pvc://CLAIM/PREFIX, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
        "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX; the prefix is optional. The claim is that of the "
        "job's namespace. With an object store, pods work on scratch space and upload from it."
    )
    endpoint_url: CloudUrl | None = Field(
        None,
        description="URL of the store, for S3-compatible stores and private endpoints; for abfs:// that of the "
        "blob service. Default: the provider's own.",
    )
    secret_ref: ObjectRef | None = Field(
        None,
        description="Secret of the job's namespace with keys of the store. s3://: AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and, where needed, AWS_SESSION_TOKEN and AWS_REGION. gs://: "
        "GOOGLE_APPLICATION_CREDENTIALS_JSON, a service account's key. abfs://: AZURE_STORAGE_ACCOUNT_KEY, or "
        "AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_TENANT_ID, AZURE_STORAGE_CLIENT_ID and AZURE_STORAGE_CLIENT_SECRET. "
        "Behind a proxy: HTTPS_PROXY and NO_PROXY. Default: the identity of the pods' service account.",
    )


class HuggingFace(ApiModel):
    """Train and serve on this cluster, with the trainer image."""

    trainer_image: ImageName = Field(
        description="Image that trains, evaluates and serves, for example ghcr.io/example/finetune-trainer:0.1.0."
    )
    check_image: ImageName | None = Field(
        None, description="Smaller image for pods that only check data or clean up volumes. Default: trainerImage."
    )
    vllm_image: ImageName | None = Field(
        None,
        alias="vllmImage",
        description="vLLM image, for deployments with engine vLLM on GPU nodes. Absent: vLLM is not available.",
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls the images."
    )
    pod_template: PodTemplate | None = Field(
        None, description="Settings of every pod of this connection: resources, placement, queue, certificates."
    )
    gpu_resource: Annotated[
        str,
        Field(max_length=128),
        shaped(
            "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$",
            "write the whole name of the resource as nodes list it, such as nvidia.com/gpu or amd.com/gpu",
        ),
    ] = Field("nvidia.com/gpu", description="Extended resource that gpusPerNode and gpus request.")
    model_cache: ModelCache | None = Field(None, description="Volume with base models. Required if airGapped.")
    air_gapped: bool = Field(
        False,
        description="If true, no hub is contacted: base models must be in modelCache, otherwise jobs fail with "
        "ModelNotInCache.",
    )
    trust_remote_code: bool = Field(
        False, description="Whether base models may run Python code that they bring. It runs with the pod's rights."
    )
    artifacts: Artifacts = Field(description="Where checkpoints and tuned weights are stored.")
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        3,
        description="Number of retries when a pod runs out of memory, is evicted, loses its node, cannot use its GPU, "
        "or reaches no store although work was saved. Evictions, lost nodes and other interruptions do not count once "
        "a newer checkpoint is reached. 0: no retries.",
    )


_OpenAIScope = Annotated[
    str,
    Field(max_length=128),
    shaped("^[!-~]+$", "write the ID as the provider's console shows it, such as proj_abc123, or leave the field out"),
    NO_PLACEHOLDER,
]


class OpenAI(ApiModel):
    """OpenAI, or any service with its fine-tuning API."""

    base_url: ApiRoot = Field("https://api.openai.com/v1", description="Base URL of the API.")
    api_key_secret_ref: SecretKeyRef = Field(description="API key: a Secret in the operator's own namespace.")
    organization: _OpenAIScope | None = Field(
        None, description="Organization to which requests are billed. Default: that of the key."
    )
    project: _OpenAIScope | None = Field(
        None, description="Project to which requests are billed. Default: that of the key."
    )


class CheckPod(ApiModel):
    """The pod in a job's namespace that checks and converts its data for a provider outside of the cluster."""

    image: ImageName | None = Field(
        None, description="Image with finetune-trainer; it does not need torch. Default: the chart's checkImage."
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls the image."
    )
    pod_template: PodTemplate | None = Field(
        None, description="Settings of the pod: resources, placement, queue, certificates."
    )


class LLMConnectionSpec(ApiModel):
    """Where models may be trained and served, and by which namespaces. Exactly one provider block is set."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"({_COUNT}) == 1",
                "spec needs exactly one provider block: huggingFace, openAI, azureOpenAI, bedrock or sageMaker",
            ),
            (
                _KEPT,
                "a connection keeps its provider, with which jobs and versions were made: apply another LLMConnection "
                "for another provider",
            ),
            (
                "!has(self.huggingFace) || !has(self.huggingFace.airGapped) || !self.huggingFace.airGapped"
                " || has(self.huggingFace.modelCache)",
                "huggingFace.airGapped needs huggingFace.modelCache: base models must come from somewhere",
                ".huggingFace.airGapped",
            ),
            (
                "!has(self.huggingFace) || !has(self.checkPod)",
                "checkPod is for providers outside of the cluster: use huggingFace.checkImage and podTemplate",
                ".checkPod",
            ),
        )
    )
    namespace_selector: LabelSelector | None = Field(
        None, description="Namespaces that may use the connection: {} is every namespace, absent is none."
    )
    fine_tuning: FineTuningPolicy = Field(FineTuningPolicy(), description="Which jobs are allowed.")
    check_pod: CheckPod | None = Field(
        None, description="Pods that check the data of jobs at a provider outside of the cluster."
    )
    hugging_face: HuggingFace | None = Field(None, description="Train and serve on this cluster.")
    open_ai: OpenAI | None = Field(None, alias="openAI", description="OpenAI, or a service with its API.")
    azure_open_ai: AzureOpenAI | None = Field(None, alias="azureOpenAI", description="Azure OpenAI.")
    bedrock: Bedrock | None = Field(None, description="AWS Bedrock.")
    sage_maker: SageMaker | None = Field(
        None, description="Train and serve with the trainer image on instances of Amazon SageMaker."
    )

    @property
    def provider(self) -> str:
        """Wire name of the provider block that is set."""
        return next(wire for name, wire in _BLOCKS if getattr(self, name) is not None)

    @property
    def place(self) -> str | None:
        """The place at its provider: what was created there exists nowhere else. None on this cluster, or if unknown.

        It leaves out what may change for the same place: keys, roles, addresses of an account.
        """
        openai, azure, aws = self.open_ai, self.azure_open_ai, self.bedrock or self.sage_maker
        parts: tuple[str | None, ...] = ()
        if openai is not None:
            parts = openai.base_url.rstrip("/"), openai.organization, openai.project
        elif azure is not None and azure.account is not None:
            parts = azure.subscription_id, azure.resource_group, azure.account
        elif aws is not None:
            parts = aws.region, f"s3://{aws.s3.bucket}/{aws.s3.prefix or ''}".rstrip("/")
        return ", ".join(part for part in parts if part)[:PLACE_LENGTH] or None

    @property
    def place_of_models(self) -> str | None:
        """Where the models are that are tuned through it; None while that is not known."""
        return THIS_CLUSTER if self.hugging_face is not None else place_of_models(self.provider, self.place)


def place_of_models(provider: str | None, place: str | None) -> str | None:
    """The part of a place that tells where models are: without the bucket of data and results, which may change."""
    return f"{provider} at {place.partition(_BUCKET)[0]}" if provider and place else None


_BLOCKS = [
    (name, alias) for name, field in LLMConnectionSpec.model_fields.items() if (alias := field.alias) in PROVIDERS
]


class LLMConnectionStatus(ApiModel):
    """What the operator knows about the connection."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status describes.")
    conditions: Conditions | None = Field(
        None, description="Ready, Reconciling, Stalled; and Retiring, True if the provider withdraws the service."
    )
    provider: Annotated[str, Field(max_length=32)] | None = Field(None, description="Which provider block is set.")
    models: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=256)] | None = Field(
        None, description="Glob patterns of allowed base models."
    )
    last_checked: Timestamp | None = Field(None, description="When the credentials were last checked, RFC 3339.")
    azure_open_ai: AzureResolved | None = Field(
        None,
        alias="azureOpenAI",
        description="Endpoint and account that were resolved from spec.azureOpenAI.workspace.",
    )
