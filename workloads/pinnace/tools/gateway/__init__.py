"""The gateway of a ToolSandbox: one URL for all tools (docs/toolsandbox.md; the path of a call is in `call.py`)."""
