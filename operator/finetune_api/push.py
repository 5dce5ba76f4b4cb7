"""Where a job's artifact is pushed in addition to its own place: a registry, a hub. And the results of that."""

from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, ObjectRef, SecretKeyRef, rules, shaped
from finetune_api.hosts import HOST, PORT

_OCI = shaped(
    rf"^oci://[a-z0-9][-a-z0-9.]*{PORT}(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][-A-Za-z0-9._]{{0,127}}$",
    "write oci://REGISTRY/REPOSITORY:TAG, such as oci://ghcr.io/team/sentiment:1; a repository is in lower case, "
    "a port is 1 to 65535",
)
_REPOSITORY = shaped(
    r"^[A-Za-z0-9][-A-Za-z0-9._]{0,95}/[A-Za-z0-9][-A-Za-z0-9._]{0,95}$", "write OWNER/NAME, as the hub shows it"
)
_HUB_URL = shaped(
    f"^https?://{HOST}$", "write the hub's address alone, such as https://hub.example.com; a port is 1 to 65535"
)


class PushToRegistry(ApiModel):
    """An OCI registry."""

    uri: Annotated[str, Field(max_length=512), _OCI] = Field(
        description="oci://REGISTRY/REPOSITORY:TAG. An existing tag is moved."
    )
    secret_ref: ObjectRef | None = Field(
        None,
        description="Secret of the job's namespace, of type kubernetes.io/dockerconfigjson, with credentials that "
        "may push.",
    )
    plain_http: bool = Field(
        False, alias="plainHTTP", description="Use HTTP without TLS, for registries inside the cluster."
    )


class PushToHub(ApiModel):
    """A Hugging Face hub, or a service with its API."""

    repository: Annotated[str, Field(max_length=193), _REPOSITORY] = Field(
        description="OWNER/NAME of a model repository; created if it does not exist."
    )
    private: bool = Field(
        True,
        description="Whether the repository is private. If true, nothing is pushed to a repository that is public.",
    )
    token_secret_ref: SecretKeyRef = Field(
        description="Token with write access: a Secret of the job's namespace, and its key."
    )
    endpoint_url: Annotated[str, Field(max_length=512), _HUB_URL] | None = Field(
        None, description="URL of a self-hosted hub. Default: https://huggingface.co."
    )


class Push(ApiModel):
    """Where to push the finished artifact."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.oci) || has(self.huggingFace)", "push needs oci or huggingFace, or both"),
        )
    )
    oci: PushToRegistry | None = Field(None, description="Push to an OCI registry, in ModelPack format.")
    hugging_face: PushToHub | None = Field(None, description="Push to a Hugging Face hub.")


class Pushed(ApiModel):
    """The result of a push. The version is valid either way."""

    target: Annotated[str, Field(max_length=512)] = Field(description="oci://…, or hf://OWNER/NAME.")
    revision: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Digest in the registry, or commit on the hub; none where the push failed."
    )
    message: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Why it failed.")
    next_step: Annotated[str, Field(max_length=1024)] | None = Field(None, description="What to do about it.")
