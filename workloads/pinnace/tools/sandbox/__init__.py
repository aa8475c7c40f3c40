"""The trusted half of a session's pod: lease, key, times and session tools, before an executor that it does not trust."""
