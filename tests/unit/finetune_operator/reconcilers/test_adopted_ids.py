"""IDs in adopt.jobID of what is no job where the connection leads: told by the field, with what is wrong about them."""

import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.at_providers import at_work as cluster
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.test_adopted_ends import ADOPTED

__all__ = ["cluster", "s3_endpoint", "start"]

JOB, TRAINING = "model-customization-job/amazon.nova-micro-v1:0:128k/abcdefabcdef", "training-job/theirs"
REGION = "it is a job of region eu-west-1, and the connection's region is us-east-1"
ACCOUNT = "it is a job of account 999999999999, and the connection's role is of 123456789012"
LIKE = "; a job's ID looks like ftjob-abc123 at OpenAI and Azure"
NAMED = "at AWS a job has its name or its ARN, and no other ID"
WRONG = [
    ("bedrock", f"arn:aws:bedrock:eu-west-1:123456789012:{JOB}", REGION),
    ("bedrock", f"arn:aws:bedrock:us-east-1:999999999999:{JOB}", ACCOUNT),
    ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0/abc",
     "it is the ARN of a custom-model; a job's has model-customization-job/ in that place"),
    ("bedrock", f"arn:aws:sagemaker:us-east-1:123456789012:{TRAINING}",
     "it is an ARN of sagemaker, and the connection leads to bedrock"),
    ("bedrock", "ftjob-abc", NAMED),
    ("bedrock", "arn:aws:bedrock", "that is not a whole ARN"),
    ("sagemaker", "arn:", "that is not a whole ARN"),
    ("sagemaker", f"arn:aws:sagemaker:eu-west-1:123456789012:{TRAINING}", REGION),
    ("sagemaker", f"arn:aws:sagemaker:us-east-1:999999999999:{TRAINING}", ACCOUNT),
    ("sagemaker", "arn:aws:sagemaker:us-east-1:123456789012:processing-job/theirs",
     "it is the ARN of a processing-job; a job's has training-job/ in that place"),
    ("sagemaker", f"arn:aws:bedrock:us-east-1:123456789012:{JOB}",
     "it is an ARN of bedrock, and the connection leads to sagemaker"),
    ("openai", "my-job", f"that looks like a name{LIKE}"),
    ("openai", "platform.openai.com/finetune/ftjob-abc", f"that looks like a part of an address{LIKE}"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", f"that looks like a tuned model's name{LIKE}"),
    ("openai", "file-abc", f"that looks like a file's ID{LIKE}"),
    ("openai", f"arn:aws:bedrock:us-east-1:123456789012:{JOB}",
     "that is an ARN of AWS, and the connection leads to openAI"),
    ("azure", "gpt-4o-mini-2024-07-18.ft-abc", f"that looks like a tuned model's name{LIKE}"),
    ("azure", "sentiment-1", f"that looks like a name{LIKE}"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "job_id", "wrong"), [(PROVIDERS[name], *rest) for name, *rest in WRONG])
async def test_what_is_wrong_about_it_is_told_and_nothing_is_made(
    at: At, cluster: CloudCluster, job_id: str, wrong: str
) -> None:
    cluster.add_cloud_job("adopted", adopt={"jobID": job_id}, modelRef={"name": "other"})
    await cluster.settle()
    await go_on(cluster, 60)
    failure = cluster.status(ADOPTED)["failure"]
    assert cluster.status(ADOPTED)["phase"] == "Failed"
    assert failure["message"].startswith(f"spec.adopt.jobID: there is no job {job_id} where the connection leads (")
    assert failure["message"].endswith(f": {wrong}"), failure["message"]
    assert "new name" in failure["nextStep"]
    assert cluster.provider.count(at.create) == 1


@pytest.mark.parametrize("at", [PROVIDERS["openai"], PROVIDERS["azure"]])
async def test_of_one_that_looks_like_a_jobs_id_no_more_is_said_than_that_there_is_none(
    at: At, cluster: CloudCluster
) -> None:
    cluster.add_cloud_job("adopted", adopt={"jobID": "ftjob-nowhere"}, modelRef={"name": "other"})
    await cluster.settle()
    await go_on(cluster, 60)
    assert cluster.status(ADOPTED)["failure"]["message"].endswith(")")
    assert cluster.provider.count(at.create) == 1
