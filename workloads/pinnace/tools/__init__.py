"""Tools for agents: gateway, tool servers, session sandboxes, and the agent's client (docs/toolsandbox.md)."""
