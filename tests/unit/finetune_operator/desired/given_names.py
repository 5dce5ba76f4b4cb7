"""Names at the limits of what Kubernetes takes."""

LONG_NAME = "a" * 60 + ".tweets.of-" + "b" * 180
"""A job's name may have 253 characters and dots; labels and pods' names may not."""
