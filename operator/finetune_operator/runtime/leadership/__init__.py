"""Leader election: the Lease, the thread that renews it, the label that the report Service selects."""
