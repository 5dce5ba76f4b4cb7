"""The job that is to be done: read from manifests, with a word for each wrong field, or given by the environment."""
