"""Building Pinnace's container images without a registry, and handing them to a containerd."""
