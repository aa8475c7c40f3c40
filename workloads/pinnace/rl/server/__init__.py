"""Rollout engines that are model servers of their own: SGLang and vLLM over HTTP. No torch."""
