"""Which version a ModelDeployment serves, on which connection and engine, or why none can be served. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job_status import Failure
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_api.uris import artifact_place
from finetune_operator.decide.connection import lacking
from finetune_operator.decide.job.versions import there_are

Engine = Literal["vLLM", "Transformers", "OpenAI", "AzureOpenAI", "Bedrock", "SageMaker"]

AT_PROVIDERS: dict[str, Engine] = {
    "openAI": "OpenAI",
    "azureOpenAI": "AzureOpenAI",
    "bedrock": "Bedrock",
    "sageMaker": "SageMaker",
}
"""Engine by provider block, for the providers that serve the models they have tuned."""


_BY_SCALE = ". kubectl scale and autoscalers write it: they are for servers on the cluster"


@dataclass(frozen=True)
class Target:
    """What to serve, and how."""

    version: ModelVersion
    connection: LLMConnectionSpec
    engine: Engine


def find_target(
    spec: ModelDeploymentSpec,
    model: FineTunedModelStatus | None,
    connections: Mapping[str, LLMConnectionSpec | None],
) -> Target | Failure:
    """The version to serve, its connection and the engine, or why there is none.

    Args:
        spec: of the ModelDeployment.
        model: status of the model that it names; None if the model does not exist.
        connections: the existing connections of the model's versions, by name; None for one that cannot be read.
    """
    if model is None:
        return Failure.because(
            Reason.MODEL_NOT_FOUND, f"spec.modelRef: FineTunedModel {spec.model_ref.name} does not exist"
        )
    number = model.active_version if spec.version == "Active" else int(spec.version)
    if number is None:
        return Failure.because(Reason.NO_VERSION, f"FineTunedModel {spec.model_ref.name} has no active version yet")
    version = next((v for v in model.versions or () if v.version == number), None)
    if version is None:
        there = there_are(model.versions or ())
        return Failure.because(
            Reason.VERSION_NOT_FOUND,
            f"spec.version: FineTunedModel {spec.model_ref.name} has no version {number}; {there}",
        )
    connection = connections.get(version.connection)
    if connection is None:
        return lacking(version.connection, is_there=version.connection in connections, of=f" of version {number}")
    target = _attach_misfit(spec, version, connection) or _on_connection(spec, version, connection)
    return target if isinstance(target, Failure) else (_idle_misfit(spec, target) or target)


def _attach_misfit(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Failure | None:
    if spec.attach is None or (connection.hugging_face is None and connection.open_ai is None):
        return None
    where = "this cluster" if connection.hugging_face is not None else "a provider without deployments"
    return Failure.because(
        Reason.SPEC_INVALID,
        f"spec.attach: version {version.version} is on {where}, so there is nothing to attach; leave it out",
    )


def _idle_misfit(spec: ModelDeploymentSpec, target: Target) -> Failure | None:
    """An action that is impossible where the version is. The API server can only reject it if a block says where."""
    action, where = spec.idle.action if spec.idle else "None", target.version.connection
    if action == "None":
        return None
    if target.connection.open_ai is not None:
        said = f"LLMConnection {where} serves without a deployment that costs anything; leave it out"
    elif target.connection.hugging_face is not None and action == "Delete":
        said = f"version {target.version.version} is served on this cluster; write ScaleToZero"
    elif target.connection.hugging_face is None and action == "ScaleToZero":
        said = f"a deployment at the provider of LLMConnection {where} has no zero; write Delete"
    else:
        return None
    return Failure.because(Reason.SPEC_INVALID, f"spec.idle.action: {said}")


def _on_connection(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    if connection.provider in AT_PROVIDERS:
        return _at_provider(spec, version, connection)
    foreign = _foreign_block(spec, connection)
    if foreign is not None:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.{foreign}: version {version.version} is on {connection.provider}; use its block, or none",
        )
    if version.artifact.uri is not None and artifact_place(version.artifact.uri) is None:
        return _unreadable(version)
    if version.artifact.uri is None and version.artifact.provider_model_id is not None:
        return _elsewhere(version, connection)
    if connection.hugging_face is not None:
        return _choose_engine(spec, version, connection)
    return Failure.because(
        Reason.PROVIDER_NOT_SUPPORTED, f"this release does not serve on {connection.provider} connections"
    )


def _unreadable(version: ModelVersion) -> Failure:
    """Somebody has edited the model's status, the only record of it."""
    return Failure(
        reason=Reason.VERSION_NOT_FOUND,
        message=f"version {version.version} cannot be found: {version.artifact.uri!r}, which status.versions of its "
        "FineTunedModel has as artifact.uri, is not a place of weights",
        next_step="Bring that status back from a backup, or pin another version (spec.activeVersion).",
    )


def _elsewhere(version: ModelVersion, connection: LLMConnectionSpec) -> Failure:
    """The connection of that name is another one now. On it the untuned base model would answer instead."""
    return Failure(
        reason=Reason.CONNECTION_NOT_FOUND,
        message=f"LLMConnection {version.connection} leads to {connection.provider} now, and version {version.version} "
        "is at the provider that has tuned it",
        next_step="Ask an admin to restore the connection as it was, or pin another version (spec.activeVersion).",
    )


def _at_provider(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    """A provider that serves the models it has tuned: there is no server to configure."""
    set_in_vain = _foreign_block(spec, connection) or ("apiKeySecretRef" if spec.api_key_secret_ref else None)
    if set_in_vain:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.{set_in_vain}: version {version.version} is served by {connection.provider}, the provider of "
            f"LLMConnection {version.connection}; leave it out{_BY_SCALE if set_in_vain == 'huggingFace' else ''}",
        )
    if spec.attach is None and connection.azure_open_ai is not None and spec.azure_open_ai is None:
        return _awaited("azureOpenAI", "a deployment at Azure", "{sku: Standard}")
    if spec.attach is None and connection.sage_maker is not None and spec.sage_maker is None:
        return _awaited("sageMaker", "an endpoint of SageMaker", "{instanceType: ml.g5.xlarge}")
    return Target(version, connection, AT_PROVIDERS[connection.provider])


def _awaited(block: str, what: str, such_as: str) -> Failure:
    """Nothing is wrong, and nothing is done: what is billed by the hour is created only for those who ask for it."""
    return Failure.because(
        Reason.AWAITING_CONFIGURATION,
        f"spec.{block}: {what} is billed by the hour, so none is made before it is spelled out: write {block}: "
        f"{such_as}, in spec.deployment.template of the FineTunedModel if that has made this object",
    )


def _foreign_block(spec: ModelDeploymentSpec, connection: LLMConnectionSpec) -> str | None:
    """A block of the spec for another provider than the version's."""
    blocks = {
        "huggingFace": spec.hugging_face,
        "azureOpenAI": spec.azure_open_ai,
        "bedrock": spec.bedrock,
        "sageMaker": spec.sage_maker,
    }
    return next((name for name, value in blocks.items() if value is not None and name != connection.provider), None)


def _choose_engine(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    """Auto chooses vLLM if GPUs are requested, the connection has an image of it, and vLLM can serve the version."""
    local = spec.hugging_face
    image = connection.hugging_face.vllm_image if connection.hugging_face else None
    wanted = local.engine if local else "Auto"
    if wanted == "vLLM" and image is None:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.huggingFace.engine: vLLM needs huggingFace.vllmImage on LLMConnection {version.connection}",
        )
    unfit = _not_for_vllm(version)
    if wanted == "vLLM" and unfit:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.huggingFace.engine: vLLM cannot serve version {version.version}: {unfit}; "
            "write Auto or Transformers instead",
        )
    gpus = (local.gpus if local else None) or 0
    automatic = wanted == "Auto" and gpus > 0 and image is not None and unfit is None
    return Target(version, connection, "vLLM" if wanted == "vLLM" or automatic else "Transformers")


def _not_for_vllm(version: ModelVersion) -> str | None:
    """Why vLLM (0.33) cannot serve a version, or None if it can."""
    if version.artifact.architecture == "Seq2SeqLM":
        return "it is an encoder-decoder"
    if version.artifact.use_dora and version.artifact.kind == "Adapter":
        return "it is a DoRA adapter"
    if version.artifact.needs_peft and version.artifact.kind == "Adapter":
        return "its adapter has biases, ranks of single layers or other things that only PEFT reads"
    return None
