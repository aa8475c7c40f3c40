"""A session's pod of ToolSandbox on this machine, without a cluster: real containers by unshare, real uids, real limits (needs root)."""
