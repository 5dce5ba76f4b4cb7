"""Fields of a job that its provider would ignore: the operator and `finetune-trainer check` refuse them."""

from collections.abc import Callable, Collection, Iterator

from finetune_api import bedrock
from finetune_api.base import alias
from finetune_api.connection import LLMConnectionSpec
from finetune_api.dataset import Dataset
from finetune_api.job import ArtifactOptions, FineTuneJobSpec, Hyperparameters, Resources
from finetune_api.openai import data_rules

SEED_LIMIT = 2**31 - 1
BETA_LIMIT = 2
EPOCHS_LIMIT = 50
BATCH_LIMIT = 256
"""OpenAI's own limits, by its API reference; compatible services have their own."""

Check = tuple[Callable[[FineTuneJobSpec], bool], str]

_DATA_OF_ADOPTED: Check = (
    lambda spec: spec.adopt is not None and spec.dataset.test is not None,
    "dataset.test: the data of a job that is adopted are not read; leave it out",
)
_CHECKS: tuple[Check, ...] = (
    (lambda spec: spec.method != "LoRA", "method: the provider chooses how it tunes; leave it out"),
    (lambda spec: spec.lora is not None, "lora: the provider chooses how it tunes; leave it out"),
    (
        lambda spec: spec.hyperparameters.epochs != int(spec.hyperparameters.epochs),
        "hyperparameters.epochs: the provider takes whole epochs",
    ),
    (lambda spec: spec.code is not None, "code: the provider runs its own; leave it out"),
    (
        lambda spec: spec.trackers is not None,
        "trackers: they follow this project's trainer, which the provider does not run; leave them out",
    ),
    (lambda spec: spec.artifact != ArtifactOptions(), "artifact: the model stays at the provider; leave it out"),
    (
        lambda spec: spec.resources != Resources(),
        "resources: the job needs none of this cluster; leave them out",
    ),
    (
        lambda spec: spec.hub_token_secret_ref is not None and not _is_on_a_hub(spec.dataset),
        "hubTokenSecretRef: the base model is the provider's, and no data are hf://, so no hub is asked; leave it out",
    ),
    _DATA_OF_ADOPTED,
)
"""In the order of the manifest: whether the field is set in vain, and a message with what to write."""

_OF_OUR_RECIPE = (
    "micro_batch_size",
    "max_sequence_length",
    "warmup_ratio",
    "schedule",
    "weight_decay",
    "max_grad_norm",
    "precision",
    "packing",
    "checkpoint_steps",
)
"""Hyperparameters that no provider accepts, as it has its own recipe. Defaults from the API server do not count."""

_OF_OPENAI: tuple[Check, ...] = (
    (
        lambda spec: spec.hyperparameters.learning_rate is not None,
        "hyperparameters.learningRate: the provider takes a factor on its own rate; write learningRateMultiplier",
    ),
    (
        lambda spec: spec.hyperparameters.seed > SEED_LIMIT,
        f"hyperparameters.seed: the provider takes seeds up to {SEED_LIMIT:,}",
    ),
    (
        lambda spec: spec.preference is not None and spec.preference.beta > BETA_LIMIT,
        f"preference.beta: the provider takes up to {BETA_LIMIT}",
    ),
    (
        lambda spec: spec.preference is not None and spec.preference.label_smoothing > 0,
        "preference.labelSmoothing: the provider takes none; leave it out",
    ),
)
_OF_OPENAI_ITSELF: tuple[Check, ...] = (
    (
        lambda spec: spec.hyperparameters.epochs > EPOCHS_LIMIT,
        f"hyperparameters.epochs: OpenAI takes up to {EPOCHS_LIMIT}",
    ),
    (
        lambda spec: spec.hyperparameters.batch_size > BATCH_LIMIT,
        f"hyperparameters.batchSize: OpenAI takes up to {BATCH_LIMIT}",
    ),
)
_OF_BEDROCK: tuple[Check, ...] = (
    (
        lambda spec: bedrock.family_of(spec.base_model) is None,
        f"baseModel: it is of no family that can be tuned at Bedrock ({bedrock.known()})",
    ),
    (lambda spec: spec.hyperparameters.seed != 0, "hyperparameters.seed: Bedrock takes none; leave it out"),
    (
        lambda spec: spec.preference is not None,
        "preference: Bedrock's jobs learn from one answer for each prompt; leave it out",
    ),
)


def unsupported_fields(spec: FineTuneJobSpec, provider: str, connection: LLMConnectionSpec | None = None) -> list[str]:
    """The fields that a provider outside of the cluster would ignore, each with what to write instead.

    Args:
        spec: of the job.
        provider: the connection's block, such as openAI; compatible services have OpenAI's rules.
        connection: of the job; None if it is not known.
    """
    if provider == "sageMaker":
        checks = _sagemaker_checks(
            connection.sage_maker.instance_types if connection and connection.sage_maker else None
        )
    else:
        checks = _CHECKS + (_OF_BEDROCK if provider == "bedrock" else _OF_OPENAI)
    if (data_rules(connection) if connection else provider) == "openAI":
        checks += _OF_OPENAI_ITSELF
    sentences = [sentence for is_in_the_way, sentence in checks if is_in_the_way(spec)]
    if provider != "sageMaker":
        sentences += _of_our_recipe(spec.hyperparameters)
    if provider == "bedrock":
        sentences += bedrock.out_of_bounds(spec)
        sentences += bedrock.other_region(
            spec, connection.bedrock.region if connection and connection.bedrock else None
        )
    return [f"spec.{sentence}" for sentence in sentences]


def _is_on_a_hub(dataset: Dataset) -> bool:
    files = (dataset.train, dataset.validation, dataset.test)
    return any(file.uri.startswith("hf://") for file in files if file is not None)


def _of_our_recipe(asked: Hyperparameters) -> Iterator[str]:
    for name in _OF_OUR_RECIPE:
        if asked.is_set(name):
            yield f"hyperparameters.{alias(name)}: the provider has its own recipe; leave it out"


def _sagemaker_checks(instance_types: Collection[str] | None) -> tuple[Check, ...]:
    """Our own trainer runs there, so most fields apply, except those that need this cluster or this namespace."""
    types = ", ".join(instance_types or ())
    return (
        (
            lambda spec: bool(spec.evaluation.services),
            "evaluation: at SageMaker the trainer calls no other service: use zeroShot, fewShot, activeVersion",
        ),
        (
            lambda spec: spec.evaluation.output is not None,
            "evaluation.output: the report is in the artifact; leave it out",
        ),
        (
            lambda spec: spec.hyperparameters.learning_rate_multiplier is not None,
            "hyperparameters.learningRateMultiplier: write learningRate",
        ),
        (
            lambda spec: spec.resources.model_copy(update={"instance_type": None, "nodes": 1}) != Resources(),
            "resources: the instance type says what an instance has; write instanceType and nodes, leave the rest out",
        ),
        (
            lambda spec: instance_types is not None and spec.resources.instance_type not in {None, *instance_types},
            f"resources.instanceType: the connection has {types}",
        ),
        (
            lambda spec: spec.artifact.push is not None,
            "artifact.push: the keys for it are in this namespace, and stay there; leave it out",
        ),
        (
            lambda spec: spec.trackers is not None,
            "trackers: their keys and claims are in this namespace, and stay there; leave them out",
        ),
        _DATA_OF_ADOPTED,
        (
            lambda spec: spec.hub_token_secret_ref is not None,
            "hubTokenSecretRef: no Secret leaves the cluster; the connection's modelCache may hold gated models",
        ),
    )
