"""What a provider outside of the cluster does not support for a job, or no longer offers. Pure."""

import re
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase

from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure
from finetune_api.provider_fields import unsupported_fields
from finetune_api.reasons import Reason
from finetune_operator.decide.job.view import Active

ARCHIVE = ".tar.gz"
"""Suffix of an artifact's URI that is a single object instead of a folder."""


def unsupported(spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str | None:
    """The fields that the provider would ignore, or None."""
    found = unsupported_fields(spec, connection.provider, connection)
    return f"for {connection.provider} connections: {'; '.join(found)}" if found else None


def cannot_be_compared_with(active: Active | None, connection: LLMConnectionSpec) -> str | None:
    """Why the active version cannot be compared with the tuned model, if that is known in advance; else None."""
    if active is None or connection.sage_maker is None or not (active.uri or "").endswith(ARCHIVE):
        return None
    return (
        f"spec.evaluation: version {active.version} of the model, which is active, is an archive ({active.uri}), and a "
        "training job is brought files alone: leave the baseline activeVersion out and set activation: Automatic or "
        "Manual on the FineTunedModel, or make a version of it active that a job of this connection has made, or adopt "
        "its files unpacked (CompressionType NONE)"
    )


def cannot_learn_preferences(spec: FineTuneJobSpec, facts: ProviderFacts) -> str | None:
    """Why the base model cannot learn from pairs of answers, or None if it can or that is unknown."""
    if spec.preference is None or facts.learns_preferences(spec.base_model) is not False:
        return None
    known = ", ".join(facts.preference_models or ())
    instead = f"set baseModel to one that does ({known}), or leave preference out" if known else "leave preference out"
    return f"spec.preference: {spec.base_model} does not learn from two answers at this provider; {instead}"


def suggested_model(base_model: str, facts: ProviderFacts) -> str | None:
    """The catalogue's model whose name begins with this one or is similar; None if it is listed, or none is similar."""
    if any(fnmatchcase(base_model, glob) for glob in facts.models):
        return None
    listed = {_plain(name): name for name in sorted(facts.models, key=len) if "*" not in name}
    begins = (name for plain, name in listed.items() if plain.startswith(_plain(base_model)))
    near = get_close_matches(_plain(base_model), listed, n=1, cutoff=0.75)
    return next(begins, None) or (listed[near[0]] if near else None)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def retired(base_model: str, facts: ProviderFacts, today: date) -> Failure | None:
    """Why the job can no longer be created, by known dates."""
    if facts.closes is not None and today >= facts.closes:
        return Failure.because(
            Reason.FINE_TUNING_CLOSED, f"the provider takes no new fine-tuning jobs since {facts.closes}"
        )
    shutdown = facts.model(base_model).shutdown
    if shutdown is not None and today >= shutdown:
        return Failure.because(Reason.MODEL_RETIRED, f"spec.baseModel: {base_model} was shut down on {shutdown}")
    return None


def retires(base_model: str, facts: ProviderFacts) -> str | None:
    """What will be retired and when, or None if nothing is known."""
    return "; ".join(part for part in (closes(facts), shuts_down(base_model, facts)) if part) or None


def closes(facts: ProviderFacts) -> str | None:
    """Until when the provider accepts jobs, if known."""
    return f"the provider takes no new fine-tuning jobs from {facts.closes} on" if facts.closes else None


def shuts_down(base_model: str, facts: ProviderFacts) -> str | None:
    """Until when a model, and models tuned from it, answer, if known."""
    shutdown = facts.model(base_model).shutdown
    return f"{base_model} and what was tuned from it are shut down on {shutdown}" if shutdown else None
