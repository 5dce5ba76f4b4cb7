"""What the AWS simulators share: protocols and shapes of botocore's service models, signatures, S3."""
