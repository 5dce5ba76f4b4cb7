"""What to do about a FineTunedModel: which version is active, whether it is deployed, which weights to delete."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api.deployment import DeploymentTemplate, ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.evaluation import EvaluationResult, Verdict
from finetune_api.job_status import Failure
from finetune_api.model import DELETED_LIMIT, DeletedVersion, FineTunedModelSpec, FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, is_true, merge, ready, reconciling, resting, stalled
from finetune_operator.decide.job.versions import latest_of, there_are
from finetune_operator.decide.pending_versions import version_to_come

_AWAITED = frozenset({Reason.CONNECTION_NOT_FOUND, Reason.AWAITING_CONFIGURATION})
"""Reasons for which a deployment waits and that the model's message must mention: only a user can resolve them."""


@dataclass(frozen=True)
class DeploymentView:
    """A ModelDeployment of the model."""

    name: str
    owned: bool
    """Whether this FineTunedModel created it."""
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    standing: frozenset[int] = frozenset()
    """Versions that its server on this cluster has by its pods: status may have lost them."""


@dataclass(frozen=True)
class ModelView:
    """All that is known of a FineTunedModel when a decision is made."""

    name: str
    generation: int
    deleting: bool
    spec: FineTunedModelSpec | None
    spec_error: str
    status: FineTunedModelStatus
    deployments: Sequence[DeploymentView]
    """The model's deployments, and any other deployment with the name of the automatic one."""
    pruned: frozenset[int]
    """Versions whose weights are confirmed to be deleted."""
    pruning: frozenset[int]
    """Versions whose weights are being deleted: they cannot be pinned or activated any more."""
    now: datetime
    standing: frozenset[int] = frozenset()
    """Versions of servers on this cluster, even if their ModelDeployments are gone."""
    makers: frozenset[str] = frozenset()
    """UIDs of the existing jobs that have made versions."""
    under_way: Sequence[str] = ()
    """Jobs that have not ended and may make a version that is pinned and does not exist yet."""

    @property
    def serving(self) -> list[DeploymentView]:
        """The model's deployments: those of other models serve none of its versions, though numbers may be equal."""
        return [one for one in self.deployments if one.spec.model_ref.name == self.name]

    @property
    def versions(self) -> list[ModelVersion]:
        """Versions whose weights exist, oldest first. Some may be about to be deleted."""
        return [version for version in self.status.versions or () if version.version not in self.pruned]

    @property
    def usable(self) -> list[ModelVersion]:
        """Versions that may become active."""
        return [version for version in self.versions if version.version not in self.pruning]


@dataclass(frozen=True)
class ModelDecision:
    """The model's new status, and what to do."""

    status: FineTunedModelStatus
    deploy: bool = False
    """Apply the automatic ModelDeployment."""
    prune: tuple[ModelVersion, ...] = ()
    """Versions whose weights to delete."""


def decide(view: ModelView) -> ModelDecision:
    """Active version, automatic deployment, history and conditions, in this order: each depends on the one before."""
    if view.deleting:
        return ModelDecision(view.status)
    if view.spec is None:
        facts = stalled(Reason.SPEC_INVALID, view.spec_error)
        return ModelDecision(_status(view, facts, view.status.active_version, view.versions))
    active = active_version(view.spec, view.usable, view.status.active_version)
    named = _named_like_model(view)
    deploy = view.spec.deployment.mode == "Automatic" and active is not None and (named is None or named.owned)
    return ModelDecision(
        status=_status(view, _facts(view, active), active, view.versions),
        deploy=deploy,
        prune=tuple(prunable(view, active)),
    )


def pins_missing_version(view: ModelView) -> bool:
    """Whether the pinned version does not exist: jobs that may make it come and go."""
    pin = view.spec.active_version if view.spec else None
    return pin is not None and all(one.version != pin for one in view.usable)


def not_deployed(view: ModelView, status: FineTunedModelStatus, failure: Failure) -> FineTunedModelStatus:
    """The decided status if the automatic deployment cannot be applied. What is served stays so."""
    facts = stalled(failure.reason, failure.sentences)
    conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
    return status.model_copy(update={"conditions": conditions})


def active_version(spec: FineTunedModelSpec, versions: Sequence[ModelVersion], present: int | None) -> int | None:
    """The active version: a pinned one that exists, else by the activation.

    A pin on a version that does not exist changes nothing: what is served stays so.
    """
    numbers = {version.version for version in versions}
    if spec.active_version is not None:
        return spec.active_version if spec.active_version in numbers else present
    if spec.activation == "Automatic":
        return max(numbers, default=None)
    if spec.activation == "IfBetter":
        return _best(versions, present)
    return present if present in numbers else None


def _best(versions: Sequence[ModelVersion], present: int | None) -> int | None:
    """The active version, replaced by each later one that beats it: nothing worse replaces a working version.

    If none is active, start from the first version. If history has deleted that, a version that was found worse does
    not become active just because it is the oldest.
    """
    active = next((version for version in versions if version.version == present), None)
    for version in versions:
        if active is None:
            is_first = version.version == 1 or present is None
            active = version if is_first or beats(version.evaluation, None) else None
        elif version.version > active.version and beats(version.evaluation, active):
            active = version
    return active.version if active else None


def beats(new: EvaluationResult | None, active: ModelVersion | None) -> bool:
    """Whether a version's evaluation found it better than the active version.

    It was compared with the version that was active when its job started. If another one is active now, the first
    metric decides, if both have the same one and the same test rows. Without an active version: better than the base.
    """
    if new is None:
        return False
    if active is None:
        return _beats_base(new)
    if (verdict := _verdict_against(new, active)) is not None:
        return verdict == "Better"
    return _beats_base(new) and _scores_higher(new, active.evaluation)


def _verdict_against(new: EvaluationResult, active: ModelVersion) -> Verdict | None:
    """The verdict against this version; None if it was compared with another one, or the comparison failed."""
    compared = new.baselines.active_version
    return compared.verdict if compared is not None and compared.version == active.version else None


def _beats_base(new: EvaluationResult) -> bool:
    return _verdict_of(new) == "Better"


def _verdict_of(new: EvaluationResult) -> Verdict | None:
    """The verdict against the base model or, if that was not evaluated, against all baselines."""
    base = new.baselines.zero_shot
    return base.verdict if base is not None and base.verdict is not None else new.verdict


def _scores_higher(new: EvaluationResult, old: EvaluationResult | None) -> bool:
    if old is None:
        return True  # the active version was never evaluated: beating the base model is more than is known of it
    if not _compare(new, old):
        return False
    before, after = old.tuned.of(new.metric), new.tuned.of(new.metric)
    return after is not None and (before is None or after > before)


def _compare(new: EvaluationResult, old: EvaluationResult) -> bool:
    """Whether both scores are of the same metric on the same rows."""
    return (new.metric, new.test_sha256) == (old.metric, old.test_sha256)


def prunable(view: ModelView, active: int | None) -> list[ModelVersion]:
    """Versions beyond historyLimit that are neither active nor served, nor requested by a deployment.

    An adopted job may make a second version of the same weights: these are deleted with the last such version.
    """
    limit = view.spec.history_limit if view.spec else len(view.versions)
    used = {active, view.status.active_version, *view.standing}
    for deployment in view.serving:
        used |= {deployment.status.served_version, deployment.status.target_version, *deployment.standing}
        if isinstance(deployment.spec.version, int):
            used.add(deployment.spec.version)
    surplus = view.versions[: max(len(view.versions) - limit, 0)]
    goes = [version for version in surplus if version.version not in used]
    stays = {_weights_of(version) for version in view.versions if version not in goes}
    return [version for version in goes if version.adopted or _weights_of(version) not in stays]


def _weights_of(version: ModelVersion) -> tuple[str | None, ...]:
    return version.connection, version.artifact.provider_model_id, version.artifact.uri


def _named_like_model(view: ModelView) -> DeploymentView | None:
    return next((one for one in view.deployments if one.name == view.name), None)


def _automatic(view: ModelView) -> DeploymentView | None:
    """The deployment with the model's name that follows its active version, whoever created it.

    Objects of one commit are applied in any order, so one created before the model counts as the model's own, unless
    the model's template says otherwise.
    """
    found = _named_like_model(view)
    if found is None or found.owned:
        return found
    follows = found in view.serving and found.spec.version == "Active"
    return found if follows and view.spec and view.spec.deployment.template == DeploymentTemplate() else None


def _facts(view: ModelView, active: int | None) -> list[Fact]:
    spec = view.spec
    pin = spec.active_version if spec else None
    if pin is not None and pin != active and not latest_of(view.status):
        return reconciling(Reason.NO_VERSION, f"{_why_no_version(view)}; version {pin} becomes active when it is made")
    if pin is not None and pin != active:
        said = f"spec.activeVersion: version {pin} does not exist; {there_are(view.usable)}"
        awaited = version_to_come(pin, latest_of(view.status), view.under_way)
        return (reconciling if awaited else stalled)(Reason.VERSION_NOT_FOUND, f"{said}{awaited and '; '}{awaited}")
    if active is None:
        manual = bool(view.versions) and spec is not None and spec.activation == "Manual"
        hint = "set spec.activeVersion to activate one" if manual else _why_no_version(view)
        return reconciling(Reason.NO_VERSION, hint)
    if spec is None or spec.deployment.mode == "Manual":
        return ready(Reason.READY, f"version {active} is active{_why_not_newest(view, active)}")
    deployment = _automatic(view)
    if deployment is None and _named_like_model(view) is not None:
        return stalled(
            Reason.NAME_CONFLICT,
            f"ModelDeployment {view.name} exists and was not made by this model: rename it, or set "
            "spec.deployment.mode: Manual",
        )
    return _deployment_facts(deployment, active, _why_not_newest(view, active))


def _why_no_version(view: ModelView) -> str:
    """Why there is no version. One that is served was made, even if status and jobs no longer tell of it."""
    served = next((found for found in view.deployments if found.status.served_version is not None), None)
    if served is None or view.versions:
        return "no job has made a version yet"
    return (
        f"status has lost its versions, and no job has recorded them: ModelDeployment {served.name} keeps serving "
        f"version {served.status.served_version}; bring status back from a backup, or the next job's version takes over"
    )


def _why_not_newest(view: ModelView, active: int) -> str:
    """Why the newest version is not the active one, if activation depends on comparing."""
    compares = view.spec is not None and view.spec.activation == "IfBetter" and view.spec.active_version is None
    newest = view.usable[-1] if view.usable else None
    if not compares or newest is None or newest.version <= active:
        return ""
    present = next((version for version in view.usable if version.version == active), None)
    why = _why_no_better(newest.evaluation, present)
    return f"; version {newest.version} {why}: set spec.activeVersion: {newest.version} to use it all the same"


def _why_no_better(new: EvaluationResult | None, active: ModelVersion | None) -> str:
    """Why `beats` is False for a version. It may still be better, without anything to tell."""
    if new is None:
        return "was not measured (dataset.test)"
    if active is None or _verdict_against(new, active) is not None:
        return "was found no better"
    if _verdict_of(new) is None:
        return f"has no verdict, against its base model or version {active.version}"
    if not _beats_base(new):
        base = new.baselines.zero_shot
        return "was found no better" + (" than its base model" if base is not None and base.verdict is not None else "")
    if active.evaluation is not None and not _compare(new, active.evaluation):
        return f"was not compared with version {active.version}, which was measured on other rows or by another metric"
    return f"was not compared with version {active.version}, and scores no higher"


def _deployment_facts(deployment: DeploymentView | None, active: int, passed_over: str) -> list[Fact]:
    """The model is ready when the active version answers."""
    if deployment is None:
        return reconciling(Reason.DEPLOYING, f"version {active} is active and is being deployed")
    conditions = deployment.status.conditions
    if deployment.status.phase == "Idle":
        why = Reason.IDLE if deployment.status.asleep else Reason.SUSPENDED
        said = next((f": {one.message}" for one in conditions or () if one.type == "Ready"), "")
        resting_on = f"version {active} is active; ModelDeployment {deployment.name} has no replicas"
        return resting(why, f"{resting_on}{said}{passed_over}")
    if is_true(conditions, "Ready") and deployment.status.served_version == active:
        return ready(Reason.READY, f"version {active} is active and answers{passed_over}")
    problem = next((c for c in conditions or () if c.type == "Stalled" and c.status == "True"), None)
    if problem:
        return stalled(Reason(problem.reason), f"ModelDeployment {deployment.name}: {problem.message}")
    leaves = deployment.status.phase == "Deleting"
    waits = next((c for c in conditions or () if c.type == "Reconciling" and (leaves or c.reason in _AWAITED)), None)
    if waits:
        told = reconciling if waits.status == "True" else resting
        return told(Reason(waits.reason), f"ModelDeployment {deployment.name}: {waits.message}")
    return reconciling(Reason.DEPLOYING, f"version {active} is active and is being deployed")


def _status(
    view: ModelView, facts: list[Fact], active: int | None, versions: list[ModelVersion]
) -> FineTunedModelStatus:
    served = {d.status.served_version: d.name for d in view.serving if d.status.served_version is not None}
    versions = [version.model_copy(update={"deployment": served.get(version.version)}) for version in versions]
    chosen = next((version for version in versions if version.version == active), None)
    automatic = _automatic(view)
    return view.status.model_copy(
        update={
            "observed_generation": view.generation,
            "conditions": merge(view.status.conditions, facts, generation=view.generation, now=view.now),
            "active_version": active,
            "base_model": chosen.base_model if chosen else None,
            "eval_loss": chosen.eval_loss if chosen else None,
            "deployment": automatic.name if automatic else None,
            "versions": versions or None,
            "let_go": _let_go(view, {version.version for version in versions}) or None,
        }
    )


def _let_go(view: ModelView, kept: set[int]) -> list[DeletedVersion]:
    """Versions deleted by history, as long as their jobs exist: only these could register them again."""
    before, versions = view.status.let_go or (), view.status.versions or ()
    new = [DeletedVersion(version=v.version, job=v.job, job_uid=v.job_uid) for v in versions if v.version not in kept]
    return [one for one in (*before, *new) if one.job_uid in view.makers][-DELETED_LIMIT:]
