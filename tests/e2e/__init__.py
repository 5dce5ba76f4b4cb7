"""End to end: real pods on the throw-away cluster, the operator installed with Helm and running in a pod."""
