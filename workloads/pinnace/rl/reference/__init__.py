"""A small rollout server on transformers: for CPUs, tests, and as the least that a `RolloutEngine` has to do."""
