"""The operator: makes the cluster be what FineTuneJobs, FineTunedModels and ModelDeployments ask for."""
