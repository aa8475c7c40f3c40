"""What a model's code may try against its sandbox: one table."""

from __future__ import annotations

from e2e.sandbox.attempts_around import CHANNELS, FILES, NETWORK
from e2e.sandbox.attempts_inside import KERNEL, OTHERS, RESOURCES

ATTEMPTS = [*RESOURCES, *OTHERS, *KERNEL, *FILES, *CHANNELS, *NETWORK]
