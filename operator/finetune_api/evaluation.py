"""Evaluation on the test set, to tell whether tuning was worth it: how a job requests it, and the result."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import NO_CALL_PATH, NO_PLACEHOLDER, TRIMMED, ApiModel, ReadBy, SecretKeyRef, rules, shaped
from finetune_api.hosts import HOST, PORT
from finetune_api.uris import ODD_CHARACTERS, ODD_CHARACTERS_HELP, parse_uri

Metric = Literal["exactMatch", "tokenF1", "rougeL", "chrF", "jsonValid", "jsonFields"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Verdict = Literal["Better", "Worse", "NoDifference"]

BASELINES = ("zeroShot", "fewShot", "activeVersion", "endpoint")
ENDPOINTS = 4
"""Maximum endpoints of a job: status must have room for the result of each."""

_BASELINE_LIMIT = ENDPOINTS + 3
_ONE_KIND = f"write one of {', '.join(BASELINES)} for each baseline, such as - zeroShot: {{}}"
_METRIC_TWICE = "name each metric once"
_BASELINE_TWICE = "name each of zeroShot, fewShot and activeVersion once"
_ENDPOINT_TWICE = "give each endpoint a name of its own"

_CLUSTER_HOST = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?[.]){1,2}svc([.]cluster[.]local)?"
CLUSTER_URL = f"^https?://{_CLUSTER_HOST}{PORT}(/.*)?$"
"""URLs of Services, which stay within the cluster."""

_ENDPOINT_URL = shaped(
    rf"^(https://{HOST}|http://({_CLUSTER_HOST}|localhost|127[.]0[.]0[.]1){PORT})(/[^@?#\s]*)?$",
    "write the root of an OpenAI-compatible API, such as https://HOST/v1 or http://SERVICE.NAMESPACE.svc/v1, without "
    "credentials and queries, or white space; a port is 1 to 65535; without TLS only Services of the cluster",
)


_NO_FIELDS = ConfigDict(json_schema_extra={"maxProperties": 0})


def stays_in_cluster(url: str) -> bool:
    """Whether the URL's host is the name of a Service."""
    return re.match(CLUSTER_URL, url) is not None


class ZeroShot(ApiModel):
    """The base model without examples."""

    model_config = _NO_FIELDS


class FewShot(ApiModel):
    """The base model with examples in its prompt."""

    examples: Annotated[int, Field(ge=1, le=64)] = Field(
        4,
        description="Number of training rows in each prompt, chosen by hyperparameters.seed. A question whose "
        "prompt would not fit into the model's context gets fewer.",
    )


class ActiveVersion(ApiModel):
    """The version of the job's model that is active when the attempt starts."""

    model_config = _NO_FIELDS


class Service(ApiModel):
    """A service with OpenAI's chat completions."""

    url: Annotated[str, Field(max_length=512), _ENDPOINT_URL, NO_CALL_PATH] = Field(
        description="Base URL of its API, for example http://rag.team-a.svc/v1. Test data are sent there. An "
        "air-gapped connection allows Services of the cluster and what its allowedEndpoints name."
    )
    model: Annotated[str, Field(min_length=1, max_length=256), TRIMMED] = Field(
        description="Name of the model in requests."
    )
    api_key_secret_ref: SecretKeyRef | None = Field(
        None, description="Bearer key: a Secret of the job's namespace. Absent: no key is sent."
    )
    concurrency: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Number of concurrent requests.")
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = Field(60, description="Seconds to wait for an answer.")


class Endpoint(Service):
    """A service to compare with: another model, or one with retrieval."""

    name: Annotated[
        str,
        Field(max_length=40),
        shaped("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "write at most 40 of a-z, 0-9 and -, such as rag"),
    ] = Field(description="Name of the endpoint in status and report, for example rag: at most 40 of a-z, 0-9 and -.")


class Judge(Service):
    """A service that compares answers."""

    criteria: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        None,
        description="What makes an answer better. Default: it is right, complete and to the point.",
    )


class Output(ApiModel):
    """Where to write a report."""

    uri: Annotated[
        str,
        Field(max_length=512),
        shaped(
            "^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/.][^/]*)+$",
            "write pvc://CLAIM/FOLDER with a claim of the job's namespace, no part of the path beginning with a dot",
        ),
        TRIMMED,
        NO_PLACEHOLDER,
        ReadBy(ODD_CHARACTERS, ODD_CHARACTERS_HELP, parse_uri),
    ] = Field(description="pvc://CLAIM/FOLDER on a claim of the job's namespace.")


class Baseline(ApiModel):
    """Something to compare the tuned model with."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"[{', '.join(f'has(self.{name})' for name in BASELINES)}].filter(one, one).size() == 1", _ONE_KIND)
        )
    )
    zero_shot: ZeroShot | None = Field(None, description="The base model without examples.")
    few_shot: FewShot | None = Field(None, description="The base model with examples in its prompt.")
    active_version: ActiveVersion | None = Field(
        None,
        description="The version that is active when the attempt starts. Always compared if the model has "
        "activation IfBetter.",
    )
    endpoint: Endpoint | None = Field(None, description="Any service with an OpenAI-compatible chat completions API.")

    @property
    def kind(self) -> str:
        """The kind of baseline, as the manifest spells it."""
        return next(iter(self.wire()))

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = (self.zero_shot, self.few_shot, self.active_version, self.endpoint)
        if sum(one is not None for one in given) != 1:
            raise ValueError(_ONE_KIND)
        return self


def _default_metrics() -> list[Metric]:
    return ["exactMatch"]


def _default_baselines() -> list[Baseline]:
    return [Baseline(zero_shot=ZeroShot())]


_ONE_BASELINE = "self.baselines.size() == 1"
"""True for most jobs, which then skips the rest of a rule."""


def _once(field: str) -> str:
    return f"self.baselines.filter(b, has(b.{field})).size() <= 1"


class Evaluation(ApiModel):
    """How the tuned model is evaluated on dataset.test, and against which baselines."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.metrics.size() == 1 || self.metrics.all(one, self.metrics.exists_one(other, other == one))",
                _METRIC_TWICE,
                ".metrics",
            ),
            (f"{_ONE_BASELINE} || {' && '.join(map(_once, BASELINES[:3]))}", _BASELINE_TWICE, ".baselines"),
            (
                f"{_ONE_BASELINE} || self.baselines.all(b, !has(b.endpoint) || "
                "self.baselines.exists_one(c, has(c.endpoint) && c.endpoint.name == b.endpoint.name))",
                _ENDPOINT_TWICE,
                ".baselines",
            ),
            (
                f"{_ONE_BASELINE} || self.baselines.filter(b, has(b.endpoint)).size() <= {ENDPOINTS}",
                f"a job may name at most {ENDPOINTS} endpoints",
                ".baselines",
            ),
        )
    )
    metrics: Annotated[list[Metric], Field(min_length=1, max_length=len(METRICS))] = Field(
        default_factory=_default_metrics,
        description="Metrics: exactMatch, tokenF1, rougeL, chrF, jsonValid, jsonFields. The first one decides the "
        "verdict. Loss and perplexity are reported, too, but at OpenAI, Azure OpenAI and Bedrock, which return none.",
    )
    baselines: Annotated[list[Baseline], Field(min_length=1, max_length=_BASELINE_LIMIT)] = Field(
        default_factory=_default_baselines,
        description="Models to compare the tuned model with, on the same rows, for example [{zeroShot: {}}, {fewShot: "
        "{examples: 4}}]. Default: zeroShot.",
    )
    judge: Judge | None = Field(
        None,
        description="A model that decides which of two answers is better, the tuned model's or a baseline's. Each "
        "pair is shown in both orders, and counts only if both agree. It does not affect the verdict.",
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None,
        description="Maximum number of tokens of an answer. Default: the longest completion of dataset.test and a "
        "little more, at most 1024.",
    )

    output: Output | None = Field(
        None,
        description="For models at a provider: folder for report.html and evaluation.jsonl, in a subfolder with "
        "the job's name. Answers are stored there as they arrive, so that an interrupted pod asks nothing twice. "
        "Jobs that leave an artifact have both files in it.",
    )

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints among the baselines."""
        return [one.endpoint for one in self.baselines if one.endpoint is not None]

    @property
    def services(self) -> dict[str, Service]:
        """All services that are called over HTTP, by their names in messages."""
        named: dict[str, Service] = {f"endpoint {one.name}": one for one in self.endpoints}
        return named | ({"judge": self.judge} if self.judge else {})

    @property
    def few_shot(self) -> FewShot | None:
        """The few-shot baseline, if there is one."""
        return next((one.few_shot for one in self.baselines if one.few_shot is not None), None)

    def has(self, kind: str) -> bool:
        """Whether there is a baseline of this kind."""
        return any(one.kind == kind for one in self.baselines)

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError(_METRIC_TWICE)
        kinds = [one.kind for one in self.baselines if one.endpoint is None]
        if len(set(kinds)) != len(kinds):
            raise ValueError(_BASELINE_TWICE)
        names = [one.name for one in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError(_ENDPOINT_TWICE)
        if len(names) > ENDPOINTS:
            raise ValueError(f"a job may name at most {ENDPOINTS} endpoints")
        return self


class Scores(ApiModel):
    """Scores of one model on the test set, each the mean over its rows."""

    exact_match: float | None = Field(None, description="Fraction of answers equal to the completion, 0 to 1.")
    token_f1: float | None = Field(None, description="Overlap of words with the completion, F1 as in SQuAD, 0 to 1.")
    rouge_l: float | None = Field(None, description="Longest common subsequence of words, ROUGE-L F1, 0 to 1.")
    chr_f: float | None = Field(None, description="Overlap of character n-grams, chrF2, 0 to 1.")
    json_valid: float | None = Field(None, description="Fraction of answers that are JSON, 0 to 1.")
    json_fields: float | None = Field(
        None, description="Fraction of fields with the right value, over rows whose completion is JSON, 0 to 1."
    )
    loss: float | None = Field(None, description="Mean negative log likelihood per completion token, in nats.")
    perplexity: float | None = Field(None, description="exp(loss).")

    def of(self, metric: Metric) -> float | None:
        """The value of one metric."""
        value: float | None = getattr(self, FIELD_OF_METRIC[metric])
        return value


FIELD_OF_METRIC: dict[Metric, str] = {
    metric: next(name for name, field in Scores.model_fields.items() if field.alias == metric) for metric in METRICS
}
"""Python names of the metrics' fields."""


class Interval(ApiModel):
    """The 95 % confidence interval of a difference."""

    low: float = Field(description="Lower end.")
    high: float = Field(description="Upper end.")


class Differences(ApiModel):
    """Tuned minus baseline: 95 % intervals by a paired bootstrap over the rows."""

    exact_match: Interval | None = Field(None, description="Of exactMatch.")
    token_f1: Interval | None = Field(None, description="Of tokenF1.")
    rouge_l: Interval | None = Field(None, description="Of rougeL.")
    chr_f: Interval | None = Field(None, description="Of chrF.")
    json_valid: Interval | None = Field(None, description="Of jsonValid.")
    json_fields: Interval | None = Field(None, description="Of jsonFields.")


class Judged(ApiModel):
    """How the judge rated the tuned model's answers against a baseline's. If the order decided, it is a tie."""

    wins: int = Field(description="Rows in which the tuned model's answer is better.")
    ties: int = Field(description="Rows in which neither answer is better.")
    losses: int = Field(description="Rows in which the baseline's answer is better.")
    errors: int = Field(0, description="Rows for which the judge gave no readable answer.")
    verdict: Verdict | None = Field(
        None,
        description="Whether the tuned model is better: by the interval of wins minus losses. Absent where fewer than "
        "half of the rows have a ruling.",
    )


class Compared(Scores):
    """A baseline's scores, and whether the tuned model is better than it."""

    verdict: Verdict | None = Field(
        None,
        description="Whether the tuned model is better than this baseline, by the interval of the first metric. Absent "
        "where fewer than half of the rows were answered.",
    )
    difference: Differences | None = Field(None, description="95 % intervals of tuned minus baseline.")
    judged: Judged | None = Field(None, description="Result of the judge.")
    problem: Annotated[str, Field(max_length=300)] | None = Field(
        None, description="Why it was not evaluated, or only on some of the rows."
    )


class FewShotScores(Compared):
    """The base model with examples."""

    examples: float | None = Field(None, description="Number of examples in a prompt, mean over the rows.")


class ActiveVersionScores(Compared):
    """The version that was active."""

    version: int | None = Field(None, description="Its number.")


class EndpointScores(Compared):
    """One endpoint."""

    name: Annotated[str, Field(max_length=40)] = Field(description="Its name in the job.")
    rows: int = Field(description="Number of rows that it answered; scores and verdict are over these.")
    errors: int = Field(0, description="Number of rows that it did not answer after retries.")
    prompt_tokens: float | None = Field(
        None, description="Prompt tokens per answer as it reports them, mean over the rows."
    )


class Baselines(ApiModel):
    """Results of the baselines, on the same rows."""

    zero_shot: Compared | None = Field(
        None,
        description="The base model without examples. Its loss is reported wherever that of the tuned model is.",
    )
    few_shot: FewShotScores | None = Field(None, description="The base model, with examples in its prompt.")
    active_version: ActiveVersionScores | None = Field(None, description="The version that was active.")
    endpoints: Annotated[list[EndpointScores], Field(max_length=ENDPOINTS)] | None = Field(
        None, description="Endpoints, in the job's order."
    )

    def all(self) -> list[Compared]:
        """The present ones."""
        named = (self.zero_shot, self.few_shot, self.active_version, *(self.endpoints or ()))
        return [one for one in named if one is not None]


class TokensPerAnswer(ApiModel):
    """Prompt tokens per answer, mean over the rows."""

    tuned: float = Field(description="The tuned model.")
    few_shot: float | None = Field(None, description="The base model with examples.")
    saved: float | None = Field(None, description="Fraction that tuning saves against few-shot, 0 to 1.")


class EvaluationResult(ApiModel):
    """Scores of the tuned model and its baselines on the test set."""

    rows: int = Field(description="Rows of the test set.")
    metric: Metric = Field("exactMatch", description="The metric that decides the verdicts.")
    tuned: Scores = Field(description="The tuned model.")
    baselines: Baselines = Field(description="Scores of the baselines on the same rows.")
    verdict: Verdict | None = Field(
        None,
        description="Overall verdict: the least favourable one of all baselines. Better only if the tuned model is "
        "better than each of them that has a verdict.",
    )
    tokens_per_answer: TokensPerAnswer | None = Field(None, description="Prompt tokens per answer.")
    missing: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="What was not measured or not asked of the tuned model, and why."
    )
    test_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="testSHA256", description="SHA-256 of the test file: results on different files are not comparable."
    )

    def compact(self) -> Self:
        """What decisions need: the first metric, losses and verdicts. For places with little room."""
        kept = {"verdict", "version", "name", "rows", "errors", "loss", FIELD_OF_METRIC[self.metric]}

        def shortened(one: Any) -> Any:
            return type(one)(**{name: getattr(one, name) for name in kept & set(type(one).model_fields)})

        few = self.baselines
        baselines = Baselines(
            zero_shot=few.zero_shot and shortened(few.zero_shot),
            few_shot=few.few_shot and shortened(few.few_shot),
            active_version=few.active_version and shortened(few.active_version),
            endpoints=few.endpoints and [shortened(one) for one in few.endpoints],
        )
        return self.model_copy(update={"tuned": shortened(self.tuned), "baselines": baselines})
