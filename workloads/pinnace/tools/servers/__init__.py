"""Our own MCP servers over stdio, each started by `python -m pinnace.tools.servers.<name>` and small."""
