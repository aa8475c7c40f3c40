"""The trusted half of a session's pod: the lease, its key and times, and the session tools, in front of an executor that it does not trust."""
