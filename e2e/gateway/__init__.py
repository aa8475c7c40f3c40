"""Gateways and tool servers as processes: for tests and benchmarks."""
