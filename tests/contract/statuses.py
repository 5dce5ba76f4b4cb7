"""A status of each kind with every field set: the API server must keep these, and prints its columns from them."""

from finetune_api.azure import AzureResolved
from finetune_api.base import Condition, Display
from finetune_api.connection import LLMConnectionStatus
from finetune_api.deployment import (
    DeploymentCost,
    DeploymentUsage,
    Endpoint,
    HostedDeployment,
    ModelDeploymentStatus,
    Sleep,
)
from finetune_api.evaluation import (
    ActiveVersionScores,
    Baselines,
    Compared,
    Differences,
    EndpointScores,
    EvaluationResult,
    FewShotScores,
    Interval,
    Judged,
    Scores,
    TokensPerAnswer,
)
from finetune_api.job_status import (
    ArtifactRef,
    ComparedVersion,
    EvaluationDeployment,
    Failure,
    FineTuneJobStatus,
    Loss,
    LossPoint,
    Progress,
    ProviderEvaluation,
    ProviderStatus,
    TokenUsage,
    TrainingResult,
)
from finetune_api.model import DeletedVersion, FineTunedModelStatus, ModelVersion
from finetune_api.push import Pushed
from finetune_api.reasons import Reason
from finetune_api.trackers import TrackerState
from finetune_api.verdict import DatasetVerdict, RowProblem, SharedRows, SplitVerdict

NOW = "2026-11-21T10:00:00Z"
SHA = "0" * 64


def conditions(**reasons: Reason) -> list[Condition]:
    return [
        Condition(
            type=kind, status="True" if kind == "Ready" else "False", reason=reason.value, message=f"about {kind}",
            last_transition_time=NOW, observed_generation=1,
        )
        for kind, reason in reasons.items()
    ]  # fmt: skip


DISPLAY = Display(base="SmolLM2-135M-Instruct", method="LoRA", progress="53%", train_loss="0.412", eval_loss="0.447")
ARTIFACT = ArtifactRef(
    uri="pvc://models/a/b", provider_model_id="ft:x", kind="Adapter", bytes=123, sha256=SHA
)  # fmt: skip
EVALUATION = EvaluationResult(
    rows=200,
    metric="exactMatch",
    tuned=Scores(
        exact_match=0.81, token_f1=0.82, rouge_l=0.83, chr_f=0.84, json_valid=0.85, json_fields=0.86, loss=0.4,
        perplexity=1.5,
    ),
    baselines=Baselines(
        zero_shot=Compared(
            exact_match=0.05, loss=3.1, perplexity=22.2, verdict="Better",
            difference=Differences(
                exact_match=Interval(low=0.7, high=0.8), token_f1=Interval(low=0.7, high=0.8),
                rouge_l=Interval(low=0.7, high=0.8), chr_f=Interval(low=0.7, high=0.8),
                json_valid=Interval(low=0.7, high=0.8), json_fields=Interval(low=-0.1, high=0.8),
            ),
        ),
        few_shot=FewShotScores(
            exact_match=0.4, verdict="Better", examples=3.9,
            judged=Judged(wins=100, ties=80, losses=18, errors=2, verdict="Better"),
        ),
        active_version=ActiveVersionScores(exact_match=0.8, verdict="NoDifference", version=2),
        endpoints=[
            EndpointScores(
                name="rag", exact_match=0.9, verdict="Worse", rows=190, errors=10, prompt_tokens=812.5,
                problem="10 rows were not answered: HTTP 500",
            )
        ],
    ),
    verdict="Worse",
    tokens_per_answer=TokensPerAnswer(tuned=31.0, few_shot=212.0, saved=0.8538),
    missing="loss and perplexity are not measured: they are not available from a provider",
    test_sha256=SHA,
)  # fmt: skip
FAILURE = Failure(
    reason=Reason.DATASET_INVALID,
    message="train.jsonl: line 17: completion is empty",
    next_step="Correct the rows.",
    exit_code=65,
    log_tail="…",
    attempt=1,
)
SPLIT = SplitVerdict(
    file="train.jsonl", format="JSONLines", rows=1200, bad_rows=1, duplicate_rows=2, tokens=61021,
    completion_tokens=2400, longest_row=300, truncated_rows=3, bytes=99999, sha256=SHA,
    problems=[
        RowProblem(
            file="train.jsonl", line=17, row_group=0, row=1, field="completion", problem="Empty",
            message="completion is empty",
        )
    ],
)  # fmt: skip
JOB = FineTuneJobStatus(
    observed_generation=1,
    phase="Running",
    display=DISPLAY,
    conditions=conditions(
        Ready=Reason.RUNNING, Reconciling=Reason.RUNNING, Stalled=Reason.RUNNING, DatasetValid=Reason.VALID
    ),
    progress=Progress(
        step=120, total_steps=225, epoch=1.6, percent=53, tokens_per_second=412.5, eta_seconds=95, answers=7,
        total_answers=800, saved_step=120, updated_at=NOW,
    ),
    loss=Loss(
        train=[LossPoint(step=10 * i, value=0.71) for i in range(100)], validation=[LossPoint(step=10, value=0.8)]
    ),
    train_loss=0.4118,
    eval_loss=0.447,
    dataset=DatasetVerdict(
        valid=False, reason=Reason.DATASET_INVALID, message="m", next_step="n", train=SPLIT, validation=SPLIT,
        test=SPLIT, shared_rows=[SharedRows(splits=["train", "test"], rows=3, examples=["test.csv line 4"])],
        warnings=["w"],
    ),
    evaluation=EVALUATION,
    trackers=[TrackerState(name="mlflow", url="https://mlflow.example.com/#/experiments/1/runs/a", problem="slow")],
    failure=FAILURE,
    provider=ProviderStatus(
        name="huggingFace", job_id="sentiment-1-1", attempt=2, retries=1, interruptions=1, fruitless_interruptions=1,
        saved_work=120, retry_after=NOW, last_failure=FAILURE, artifact_uri="pvc://models/a/b", owner_uid="u",
        evaluation=ProviderEvaluation(
            job_id="sentiment-1-1-eval2", tries=2, failures=1, retry_after=NOW, ended=True, failure=FAILURE,
            active_version=ComparedVersion(version=2, model="ft:gpt-4o-mini:acme::a"),
            tuned=TokenUsage(answers=400, prompt_tokens=12000, completion_tokens=800), base=TokenUsage(answers=200),
            deployments=[
                EvaluationDeployment(
                    candidate="tuned", name="default-sentiment-1-abc123-e2t", created_at=NOW, unseen_since=NOW,
                    ready_at=NOW, address="arn:aws:bedrock:us-east-1:1:custom-model-deployment/a", borrowed=True,
                    released=True, per_hour="1.70", failure="it failed at the provider",
                )
            ],
            deployments_gone=True, deploying_since=NOW, hosting="1.7000",
        ),
    ),
    result=TrainingResult(
        artifact=ARTIFACT, steps=225, tokens=183000, train_loss=0.4, eval_loss=0.44, runtime_seconds=600,
        dataset_sha256=SHA,
        pushes=[
            Pushed(target="oci://ghcr.io/team/sentiment:3", revision=f"sha256:{SHA}"),
            Pushed(target="hf://team/sentiment", message="the hub does not take it", next_step="Check the token."),
        ],
        warnings=["the training loss rose"], evaluation_failure=FAILURE,
    ),
    model_version=3,
    observed_retry_nonce="again",
    start_time=NOW,
    completion_time=NOW,
)  # fmt: skip
MODEL = FineTunedModelStatus(
    observed_generation=1,
    display=DISPLAY,
    conditions=conditions(Ready=Reason.READY, Reconciling=Reason.READY, Stalled=Reason.READY),
    active_version=3,
    latest_version=3,
    let_go=[DeletedVersion(version=1, job="sentiment-1", job_uid="4c1b2a3d-0000-4000-8000-000000000001")],
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    eval_loss=0.447,
    deployment="sentiment",
    versions=[
        ModelVersion(
            version=3, job="sentiment-3", job_uid="u", connection="local", place="openAI at https://a.example/v1",
            method="LoRA", artifact=ARTIFACT,
            base_model="HuggingFaceTB/SmolLM2-135M-Instruct", dataset_sha256=SHA, train_loss=0.4, eval_loss=0.447,
            adopted=False, evaluation=EVALUATION, created_at=NOW, deployment="sentiment",
        )
    ],
)  # fmt: skip
DEPLOYMENT = ModelDeploymentStatus(
    observed_generation=1,
    phase="Ready",
    conditions=conditions(Ready=Reason.READY, Reconciling=Reason.READY, Stalled=Reason.READY),
    served_version=3,
    target_version=3,
    engine="Transformers",
    replicas=1,
    selector="finetune.dev/deployment=sentiment",
    endpoint=Endpoint(url="http://sentiment.default.svc/v1", model="sentiment"),
    cost=DeploymentCost(
        per_hour="1.70", since_deployed="40.80", ended="10.2000", unpriced=True, display="1.70 USD", currency="USD",
        basis="Standard at 1.70 USD an hour, list price of 2026-11-01",
    ),
    hosted=[
        HostedDeployment(
            name="sentiment-v3", version=3, connection="azure", created_at=NOW, answered=True, attached=True,
            silent_since=NOW, unseen_since=NOW, released_at=NOW, per_hour="1.70", billed_since=NOW,
            operation="/subscriptions/1/providers/Microsoft.CognitiveServices/locations/west/asyncOperations/2",
        )
    ],
    usage=DeploymentUsage(deployment="sentiment-v3", last_request_at=NOW, counted=7, warned_at=NOW),
    asleep=Sleep(since=NOW, generation=1, wake="1"),
)  # fmt: skip
CONNECTION = LLMConnectionStatus(
    observed_generation=1,
    conditions=conditions(Ready=Reason.READY, Reconciling=Reason.READY, Stalled=Reason.READY),
    provider="huggingFace",
    models=["HuggingFaceTB/*", "meta-llama/*"],
    last_checked=NOW,
    azure_open_ai=AzureResolved(
        workspace="ml", connection="aoai", endpoint="https://a.openai.azure.com", subscription_id="s",
        resource_group="g", account="a",
    ),
)  # fmt: skip
