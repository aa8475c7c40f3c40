"""A session's pod on this machine, without a cluster: real containers by unshare, two uids, limits. Needs root."""
