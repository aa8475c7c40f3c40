"""The trusted half of a session's pod: lease, key, times and tools, before an executor that it does not trust."""
