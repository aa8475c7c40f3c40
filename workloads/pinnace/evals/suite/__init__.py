"""An EvalSuite's pods: the check before the model is served, and the shards that share the attempts."""
