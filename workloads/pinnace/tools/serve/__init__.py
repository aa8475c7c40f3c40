"""The bridge: a stdio MCP server, as a supervised pool of processes, behind stateless Streamable HTTP (2026-07-28)."""
