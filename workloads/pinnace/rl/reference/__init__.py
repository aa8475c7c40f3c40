"""A small rollout server on transformers: for CPUs, tests, and as the least that a `RolloutServer` has to do."""
