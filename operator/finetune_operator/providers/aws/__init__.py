"""Shared by the AWS providers: signed calls, S3, usage metrics."""
