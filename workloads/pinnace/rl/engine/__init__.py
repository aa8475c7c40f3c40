"""Training engines: gradients of samples, and optimizer steps. Every module but `protocol` imports torch."""
