"""What the providers at AWS share: signed calls, S3, usage figures."""
