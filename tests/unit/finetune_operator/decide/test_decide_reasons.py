"""The closed set of reasons: each has a state in which a person meets it."""

from finetune_api.exit_codes import REASON_OF_EXIT_CODE
from finetune_api.reasons import Reason
from finetune_operator.decide.transient import RETRIED
from tests.unit.finetune_operator.decide import test_decide_model
from tests.unit.finetune_operator.decide.cloud_job import test_decide_cloud_job
from tests.unit.finetune_operator.decide.deployment import test_decide_deployment
from tests.unit.finetune_operator.decide.job import test_decide_job

FROM_ELSEWHERE = {
    Reason.VALID,  # DatasetValid, as the trainer's verdict says
    Reason.DEADLINE_EXCEEDED,  # of the batch Job: test_decide_run
    Reason.ATTACHED_DIFFERS,  # of a deployment that somebody else has made: test_decide_attached
    Reason.DEPLOYMENT_NOT_FOUND,  # as above
    Reason.BILLED_WHILE_IDLE,  # condition Idle: test_decide_idle
    Reason.IN_USE,  # as above
    Reason.USAGE_UNKNOWN,  # as above
    Reason.PROVIDER_NOT_SUPPORTED,  # own code at a provider: test_policy
    Reason.EXPIRED,  # of a deployment at a provider: test_decide_hosted
    Reason.JOB_SET_MISSING,  # of an attempt on several nodes: test_reconcile_nodes
    Reason.MODEL_RETIRES,  # condition Retiring: test_decide_cloud_job
    Reason.BUCKET_NOT_FOUND,  # of AWS's refusals: test_aws_and_s3
    Reason.ROLE_NOT_USABLE,
    Reason.PROVIDER_BUSY,
    Reason.PUSH_FAILED,  # condition Pushed: test_decide_job
    Reason.TRACKER_FAILED,  # condition Tracked: test_decide_attempts
    Reason.VOLUME_UNAVAILABLE,  # of a pod's Events: test_pod_refusals
    Reason.POD_NOT_STARTED,  # as above
    Reason.WRITE_REFUSED,  # of a policy or a webhook: test_refused_writes
    Reason.MODEL_FULL,  # of results that wait: test_many_versions
    Reason.TRAINER_CRASHED,  # of an exit code that is nobody's: test_decide_run
}


def test_each_reason_is_in_a_table_of_states() -> None:
    told = {Reason(row[2]) for row in test_decide_job.STATES.values()}
    told |= {Reason(row[1]) for row in test_decide_model.STATES.values()}
    told |= {Reason(row[2]) for row in test_decide_deployment.STATES.values()}
    told |= {Reason(row[2]) for row in test_decide_cloud_job.STATES.values()}
    told |= set(REASON_OF_EXIT_CODE.values()) | RETRIED
    assert set(Reason) - told - FROM_ELSEWHERE == set()
