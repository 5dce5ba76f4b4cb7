"""A throw-away Kubernetes cluster for the tests and the demo: real components, no container engine, no public registry.

`Cluster(name).up()` and `.down()`, or `python -m tests.cluster up`. See README.md in this folder for what it offers
and what not. It knows nothing of the operator but the three Dockerfile targets that `build_images` builds.
"""

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.images import BuiltImages, base_image, build_all, build_images

__all__ = ["BuiltImages", "Cluster", "ClusterError", "base_image", "build_all", "build_images"]
