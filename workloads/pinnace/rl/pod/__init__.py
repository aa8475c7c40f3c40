"""An RLRun's pods: from the job that the operator describes to the configuration that a run's processes read."""
