"""boto3 as the simulators' tests use it: one try a call, with keys that are nobody's."""

from typing import Any

import boto3
from botocore.config import Config


def aws(
    service: str, url: str, secret: str = "simulated-secret", key: str = "AKIASIMULATED", timeout: float = 5
) -> Any:
    """A client of one service at `url`; `timeout`: seconds until it gives an answer up."""
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, read_timeout=timeout),
    )  # fmt: skip
