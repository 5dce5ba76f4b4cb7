"""What a provider outside of the cluster could not do with a job, and what it will not do any more. Pure."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase

from finetune_api import bedrock
from finetune_api.aws import SageMaker
from finetune_api.base import alias
from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.dataset import Dataset
from finetune_api.job import ArtifactOptions, FineTuneJobSpec, Hyperparameters, Resources
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.view import Active

ARCHIVE = ".tar.gz"
"""How the URI of an artifact ends that is one object, and no folder of files."""

SEED_LIMIT = 2**31 - 1
BETA_LIMIT = 2

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
"""In the order of the manifest: whether it is in the way, and the field with what to write."""

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
"""Hyperparameters that no provider takes: it has its own recipe. What the API server fills in asks for nothing."""

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


def meaningless(spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str | None:
    """The fields that the provider could not heed, or None."""
    if connection.sage_maker:
        checks = _sagemaker_checks(connection.sage_maker)
    else:
        of_provider = _OF_BEDROCK if connection.bedrock else _OF_OPENAI
        checks = _CHECKS + of_provider
    sentences = [sentence for is_in_the_way, sentence in checks if is_in_the_way(spec)]
    if not connection.sage_maker:
        sentences += _of_our_recipe(spec.hyperparameters)
    if connection.bedrock:
        sentences += bedrock.out_of_bounds(spec)
    found = [f"spec.{sentence}" for sentence in sentences]
    return f"for {connection.provider} connections: {'; '.join(found)}" if found else None


def _is_on_a_hub(dataset: Dataset) -> bool:
    files = (dataset.train, dataset.validation, dataset.test)
    return any(file.uri.startswith("hf://") for file in files if file is not None)


def _of_our_recipe(asked: Hyperparameters) -> Iterator[str]:
    for name in _OF_OUR_RECIPE:
        if asked.asks_for(name):
            yield f"hyperparameters.{alias(name)}: the provider has its own recipe; leave it out"


def _sagemaker_checks(settings: SageMaker) -> tuple[Check, ...]:
    """Our own trainer runs there, so most has a meaning; it has neither this cluster nor this namespace at hand."""
    types = ", ".join(settings.instance_types)
    return (
        (
            lambda spec: bool(spec.evaluation.services),
            "evaluation: at SageMaker the trainer asks nobody else: use zeroShot, fewShot, activeVersion",
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
            lambda spec: spec.resources.instance_type not in {None, *settings.instance_types},
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


def cannot_be_compared_with(active: Active | None, connection: LLMConnectionSpec) -> str | None:
    """Why the active version cannot be asked beside the tuned model, where that is known before; None where it can."""
    if active is None or connection.sage_maker is None or not (active.uri or "").endswith(ARCHIVE):
        return None
    return (
        f"spec.evaluation: version {active.version} of the model, which is active, is an archive ({active.uri}), and a "
        "training job is brought files alone: leave the baseline activeVersion out and set activation: Automatic or "
        "Manual on the FineTunedModel, or make a version of it active that a job of this connection has made, or adopt "
        "its files unpacked (CompressionType NONE)"
    )


def cannot_learn_preferences(spec: FineTuneJobSpec, facts: ProviderFacts) -> str | None:
    """Why the base model learns from no pairs of answers, or None where it does or nobody knows."""
    if spec.preference is None or facts.learns_preferences(spec.base_model) is not False:
        return None
    known = ", ".join(facts.preference_models or ())
    instead = f"set baseModel to one that does ({known}), or leave preference out" if known else "leave preference out"
    return f"spec.preference: {spec.base_model} does not learn from two answers at this provider; {instead}"


def meant(base_model: str, facts: ProviderFacts) -> str | None:
    """The catalogue's model whose name is like this one, or begins with it; None where it is listed, or none is."""
    if any(fnmatchcase(base_model, glob) for glob in facts.models):
        return None
    listed = {_plain(name): name for name in sorted(facts.models, key=len) if "*" not in name}
    begins = (name for plain, name in listed.items() if plain.startswith(_plain(base_model)))
    near = get_close_matches(_plain(base_model), listed, n=1, cutoff=0.75)
    return next(begins, None) or (listed[near[0]] if near else None)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def retired(base_model: str, facts: ProviderFacts, today: date) -> Failure | None:
    """Why the job cannot be made any more, from dates that are known."""
    if facts.closes is not None and today >= facts.closes:
        return Failure.because(
            Reason.FINE_TUNING_CLOSED, f"the provider takes no new fine-tuning jobs since {facts.closes}"
        )
    shutdown = facts.model(base_model).shutdown
    if shutdown is not None and today >= shutdown:
        return Failure.because(Reason.MODEL_RETIRED, f"spec.baseModel: {base_model} was shut down on {shutdown}")
    return None


def retires(base_model: str, facts: ProviderFacts) -> str | None:
    """What will end and when, or None where nothing is known."""
    return "; ".join(part for part in (closes(facts), shuts_down(base_model, facts)) if part) or None


def closes(facts: ProviderFacts) -> str | None:
    """Until when the provider takes jobs, where that is known."""
    return f"the provider takes no new fine-tuning jobs from {facts.closes} on" if facts.closes else None


def shuts_down(base_model: str, facts: ProviderFacts) -> str | None:
    """Until when a model and what was tuned from it answers, where that is known."""
    shutdown = facts.model(base_model).shutdown
    return f"{base_model} and what was tuned from it are shut down on {shutdown}" if shutdown else None
