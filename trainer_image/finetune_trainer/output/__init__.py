"""What a run leaves: the artifact, and what a next attempt needs; written, kept in a store, pushed elsewhere."""
