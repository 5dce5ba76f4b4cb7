"""boto3 clients for the simulators' tests: no retries, with invented keys."""

from typing import Any

import boto3
from botocore.config import Config


def aws(
    service: str, url: str, secret: str = "simulated-secret", key: str = "AKIASIMULATED", timeout: float = 5
) -> Any:
    """A client of one service at `url`; `timeout`: read timeout in seconds."""
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, read_timeout=timeout),
    )  # fmt: skip
