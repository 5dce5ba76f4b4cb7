"""What a connection allows: which namespaces, which models, whether at all. Each check returns a failure or None.

The operator refuses jobs by it; `finetune-trainer check` reports the same if it is given the connection's manifest.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from finetune_api.base_models import is_safe_name, may_be_on_a_hub, step_for
from finetune_api.connection import LabelSelector, LabelSelectorRequirement, LLMConnectionSpec
from finetune_api.evaluation import stays_in_cluster
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason

REASONS = frozenset(
    {
        Reason.NAMESPACE_NOT_ALLOWED,
        Reason.FINE_TUNING_DISABLED,
        Reason.MODEL_NOT_ALLOWED,
        Reason.CODE_NOT_ALLOWED,
        Reason.PROVIDER_NOT_SUPPORTED,
        Reason.ENDPOINT_NOT_ALLOWED,
    }
)
"""The reasons of a refusal by a connection."""


Check = Callable[["Request"], Failure | None]


@dataclass(frozen=True)
class Request:
    """Who wants to tune what with which connection."""

    spec: FineTuneJobSpec
    namespace: str
    namespace_labels: Mapping[str, str]
    connection: LLMConnectionSpec

    @property
    def named(self) -> str:
        """The connection, as messages name it."""
        return f"LLMConnection {self.spec.connection_ref.name}"


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an absent one matches nothing, an empty one everything (meta/v1)."""
    if selector is None:
        return False
    wanted = (selector.match_labels or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _expression_holds(expression, labels) for expression in selector.match_expressions or ()
    )


def _expression_holds(expression: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value is not None and value in (expression.values or ())
        case "NotIn":
            return value is None or value not in (expression.values or ())
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def model_allowed(allowed: list[str] | None, model: str) -> bool:
    """Whether a base model matches one of the globs; without a list all do."""
    return allowed is None or any(fnmatchcase(model, glob) for glob in allowed)


_CASE = "; names are case-sensitive: write the name as there"


def namespace_may_use(request: Request) -> Failure | None:
    """The connection's namespaceSelector must match the job's namespace."""
    if selects(request.connection.namespace_selector, request.namespace_labels):
        return None
    said = f"spec.connectionRef: {request.named} does not serve namespace {request.namespace}"
    return Failure.because(Reason.NAMESPACE_NOT_ALLOWED, said)


def fine_tuning_is_on(request: Request) -> Failure | None:
    """Fine-tuning must be enabled on the connection."""
    if request.connection.fine_tuning.enabled:
        return None
    said = f"spec.connectionRef: fine-tuning is switched off on {request.named}"
    return Failure.because(Reason.FINE_TUNING_DISABLED, said)


_UNDER_A_NEW_NAME = "Then apply the job under a new name."


def base_model_name_is_valid(request: Request) -> Failure | None:
    """Our own trainer accepts names of models on a hub or in the connection's model cache."""
    name, own = request.spec.base_model, request.connection.hugging_face or request.connection.sage_maker
    if own is None or request.spec.adopt is not None:
        return None
    if not is_safe_name(name):
        said = f"spec.baseModel: {name!r} is not a name of a model"
    elif own.model_cache is None and not may_be_on_a_hub(name):
        said = f"spec.baseModel: no model of a hub is called {name!r}, and {request.named} has no model cache"
    else:
        return None
    return Failure(reason=Reason.SPEC_INVALID, message=said, next_step=f"{step_for(name)} {_UNDER_A_NEW_NAME}")


def base_model_is_allowed(request: Request) -> Failure | None:
    """The base model must be in the connection's list."""
    allowed = request.connection.fine_tuning.allowed_models
    if model_allowed(allowed, request.spec.base_model):
        return None
    in_other_letters = model_allowed([glob.lower() for glob in allowed or ()], request.spec.base_model.lower())
    return Failure.because(
        Reason.MODEL_NOT_ALLOWED,
        f"spec.baseModel: {request.spec.base_model} is not among the models that {request.named} allows: "
        f"{', '.join(allowed or ()) or 'none'}{_CASE if in_other_letters else ''}",
    )


def code_is_allowed(request: Request) -> Failure | None:
    """Custom code runs only where our own trainer does, and if an admin allows it."""
    if request.spec.code is None:
        return None
    if request.connection.hugging_face is None and request.connection.sage_maker is None:
        return Failure(
            reason=Reason.PROVIDER_NOT_SUPPORTED,
            message=f"spec.code: {request.named} leads to {request.connection.provider}, which runs no custom code",
            next_step="Remove spec.code, or use a connection with a huggingFace or sageMaker block, and apply the job "
            "under a new name.",
        )
    if request.connection.fine_tuning.allow_code:
        return None
    return Failure.because(Reason.CODE_NOT_ALLOWED, f"spec.code: {request.named} does not allow custom code")


def fields_fit_the_provider(request: Request) -> Failure | None:
    """Fields that only apply at a provider outside of the cluster."""
    if request.connection.hugging_face is None:
        return None
    fields = {"adopt": request.spec.adopt, "budget": request.spec.budget}
    named = [f"spec.{name}" for name, value in fields.items() if value is not None]
    if request.spec.hyperparameters.learning_rate_multiplier is not None:
        named.append("spec.hyperparameters.learningRateMultiplier")
    if request.spec.evaluation.output is not None:
        named.append("spec.evaluation.output")
    if request.spec.resources.instance_type is not None:
        named.append("spec.resources.instanceType")
    if not named:
        return None
    said = f"{' and '.join(named)}: {request.named} tunes on this cluster; leave it out"
    return Failure.because(Reason.SPEC_INVALID, said)


def pushes_are_possible(request: Request) -> Failure | None:
    """Models at a provider outside of the cluster stay there, and an air-gapped site cannot reach a hub."""
    push, local = request.spec.artifact.push, request.connection.hugging_face
    if push is None:
        return None
    if local is None:
        said = f"spec.artifact.push: {request.named} keeps its models at the provider; leave it out"
        return Failure.because(Reason.SPEC_INVALID, said)
    if local.air_gapped and push.hugging_face is not None:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.artifact.push.huggingFace: {request.named} is air-gapped and reaches no hub; push to a "
            "registry inside the site with oci, or leave it out",
        )
    return None


def endpoints_are_allowed(request: Request) -> Failure | None:
    """Where the test set may be sent. From an air-gapped site nothing leaves the cluster unless the admin allows it."""
    connection = request.connection
    globs = connection.fine_tuning.allowed_endpoints
    if globs is None:
        globs = [] if connection.hugging_face is not None and connection.hugging_face.air_gapped else ["*"]
    for name, service in request.spec.evaluation.services.items():
        url = service.url.rstrip("/") + "/"
        if not stays_in_cluster(url) and not any(fnmatchcase(url, glob) for glob in globs):
            return Failure.because(
                Reason.ENDPOINT_NOT_ALLOWED,
                f"spec.evaluation: {name} is outside the cluster and not among those that {request.named} allows: "
                f"{', '.join(globs) or 'none'}",
            )
    return None


OF_THE_JOB: tuple[Check, ...] = (
    fine_tuning_is_on,
    base_model_name_is_valid,
    base_model_is_allowed,
    code_is_allowed,
    fields_fit_the_provider,
    endpoints_are_allowed,
    pushes_are_possible,
)
"""Checks that depend only on the job, not on its namespace."""

CHECKS = (namespace_may_use, *OF_THE_JOB)
"""In this order: a namespace that may not use a connection learns nothing about what it allows."""


def refusal(request: Request) -> Failure | None:
    """The first failed check, or None."""
    return _first(CHECKS, request)


def refusal_of(spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> Failure | None:
    """What the connection does not allow in such a job, in a namespace that may use it."""
    return _first(OF_THE_JOB, Request(spec, "", {}, connection))


def _first(checks: Iterable[Check], request: Request) -> Failure | None:
    return next((found for check in checks if (found := check(request))), None)
