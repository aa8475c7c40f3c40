"""Tools for agents: the gateway, the tool servers behind it, the session sandboxes, and the agent's client (docs/toolsandbox.md)."""
