"""Names at Kubernetes' length limits."""

LONG_NAME = "a" * 60 + ".tweets.of-" + "b" * 180
"""A job's name may have 253 characters and dots; labels and pod names may not."""
