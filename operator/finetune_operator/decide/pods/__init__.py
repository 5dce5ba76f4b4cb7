"""What the cluster says of a pod, for trainers and servers alike: why it does not start, how it ended. Pure."""
