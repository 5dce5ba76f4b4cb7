"""`make demo`: plays examples/quickstart on a cluster and shows what happens.

It applies the manifests of `examples/quickstart/` as they stand, but for the image, and does nothing that a person
could not do with kubectl and helm. Python's own library is all it needs; `tests.cluster` gives it a cluster and the
images.
"""
