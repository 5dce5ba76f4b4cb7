"""Shared by the AWS simulators: protocols and shapes of botocore's service models, signatures, S3."""
