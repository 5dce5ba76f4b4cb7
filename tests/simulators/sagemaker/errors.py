"""SageMaker's errors, most of them with its own messages."""

from tests.simulators.http import ApiError


def invalid(message: str) -> ApiError:
    """A ValidationException, which SageMaker also uses for missing objects."""
    return ApiError(400, "ValidationException", message)


def no_job() -> ApiError:
    return invalid("Requested resource not found.")


def in_use(message: str) -> ApiError:
    return ApiError(400, "ResourceInUse", message)


def exists(kind: str, arn: str) -> ApiError:
    return invalid(f'Cannot create already existing {kind} "{arn}".')


def missing(kind: str, arn: str) -> ApiError:
    return invalid(f'Could not find {kind} "{arn}".')


def over_limit(instance: str, usage: str, limit: int, used: int, asked: int) -> ApiError:
    return ApiError(400, "ResourceLimitExceeded", f"The account-level service limit '{instance} for {usage} usage' is "
                    f"{limit} Instances, with current utilization of {used} Instances and a request delta of {asked} "
                    "Instances. Please use AWS Service Quotas to request an increase for this quota.")  # fmt: skip


def role_not_assumed(role: str) -> ApiError:
    return invalid(f"Could not assume role {role}. Please ensure that the role exists and allows principal "
                   "'sagemaker.amazonaws.com' to assume the role.")  # fmt: skip
