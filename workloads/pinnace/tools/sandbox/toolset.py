"""The session tools as a model sees them: names, words, arguments."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_Seconds = Annotated[float, Field(gt=0, le=3600, description="Longest run time in seconds")]
_Path = Annotated[
    str, Field(min_length=1, max_length=4000, description="Path in the workspace, relative or below /workspace")
]


class ToolCall(BaseModel):
    """Arguments of one tool. Its docstring is the tool's description; unknown arguments are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")
    group: ClassVar[str]
    read_only: ClassVar[bool] = False


class Python(ToolCall):
    """Run Python in the session's interpreter. Variables, imports and functions stay for later calls. The value of a
    last expression is shown as in a notebook; print for more. Figures of matplotlib and PIL images come back as
    pictures. Top-level await works. Files are in the current folder, /workspace.
    """

    group = "python"
    code: Annotated[str, Field(max_length=1_000_000, description="Python source")]
    timeout_seconds: _Seconds | None = None


class PythonReset(ToolCall):
    """Start a fresh Python interpreter: all variables are gone, files stay."""

    group = "python"


class Shell(ToolCall):
    """Run a command in the session's bash. Folder, variables and functions stay for later calls. Standard input is
    empty. Set background for servers and long work: it returns a job name for shell_output and shell_kill.
    """

    group = "shell"
    command: Annotated[str, Field(min_length=1, max_length=200_000, description="Bash source, one or many lines")]
    timeout_seconds: _Seconds | None = None
    background: Annotated[bool, Field(description="Return at once with a job name")] = False


class ShellOutput(ToolCall):
    """What a background command wrote since this was last asked, and whether it still runs."""

    group = "shell"
    job: Annotated[str, Field(max_length=64, description="Name that shell returned")]
    wait_seconds: Annotated[float, Field(ge=0, le=300, description="Wait so long for something new")] = 0


class ShellKill(ToolCall):
    """End a background command and everything that it started."""

    group = "shell"
    job: Annotated[str, Field(max_length=64, description="Name that shell returned")]


class ReadFile(ToolCall):
    """Read a text file of the workspace with line numbers."""

    group = "files"
    read_only = True
    path: _Path
    start: Annotated[int, Field(ge=1, description="First line")] = 1
    lines: Annotated[int, Field(ge=1, le=10_000, description="How many lines")] = 400


class WriteFile(ToolCall):
    """Write a text file of the workspace; folders on the way are made. It replaces what is there, unless append is
    set.
    """

    group = "files"
    path: _Path
    content: Annotated[str, Field(max_length=8_000_000)]
    append: bool = False


class EditFile(ToolCall):
    """Replace an exact passage of a text file. It must be there exactly once, unless replaceAll is set."""

    group = "files"
    path: _Path
    old_text: Annotated[str, Field(min_length=1, max_length=1_000_000, description="Copied exactly, with its spaces")]
    new_text: Annotated[str, Field(max_length=1_000_000)]
    replace_all: bool = False


class ListFiles(ToolCall):
    """List files and folders of the workspace with size and time."""

    group = "files"
    read_only = True
    path: _Path = "."
    depth: Annotated[int, Field(ge=1, le=50, description="Levels of folders")] = 2
    limit: Annotated[int, Field(ge=1, le=5000)] = 200


class FindFiles(ToolCall):
    """Find files by name: a glob such as *.py, or with a slash against the whole path, such as src/*/test_*.py."""

    group = "files"
    read_only = True
    pattern: Annotated[str, Field(min_length=1, max_length=500)]
    path: _Path = "."
    limit: Annotated[int, Field(ge=1, le=5000)] = 200


class Grep(ToolCall):
    """Search text files for lines that match a regular expression (Python's syntax)."""

    group = "files"
    read_only = True
    pattern: Annotated[str, Field(min_length=1, max_length=1000)]
    path: _Path = "."
    glob: Annotated[str, Field(max_length=200, description="Only files with such a name")] = "*"
    ignore_case: bool = False
    limit: Annotated[int, Field(ge=1, le=2000)] = 100


class Upload(ToolCall):
    """Put bytes into a file of the workspace, or unpack them (tar, tar.gz, zip) into a folder. A long file goes in
    parts: set append for all but the first.
    """

    group = "files"
    path: _Path
    data: Annotated[str, Field(max_length=12_000_000, description="base64, up to 8 MiB of bytes")]
    unpack: bool = False
    append: bool = False


class Download(ToolCall):
    """Get a file of the workspace as bytes (base64, up to 8 MiB)."""

    group = "files"
    read_only = True
    path: _Path


SERVER, TOOL = "pinnace.dev/server", "pinnace.dev/tool"
"""In a tool's `_meta`, for the gateway: where it is, and its own name there, if it is another."""
GROUPS = ("python", "shell", "files")
TOOLS: dict[str, type[ToolCall]] = {
    "python": Python,
    "python_reset": PythonReset,
    "shell": Shell,
    "shell_output": ShellOutput,
    "shell_kill": ShellKill,
    "read_file": ReadFile,
    "write_file": WriteFile,
    "edit_file": EditFile,
    "list_files": ListFiles,
    "find_files": FindFiles,
    "grep": Grep,
    "upload": Upload,
    "download": Download,
}


def describe(groups: frozenset[str]) -> list[dict[str, Any]]:
    """`tools` of `tools/list`."""
    return [
        {
            "name": name,
            "description": " ".join((tool.__doc__ or "").split()),
            "inputSchema": _schema(tool),
            "annotations": {
                "readOnlyHint": tool.read_only,
                "destructiveHint": not tool.read_only,
                "idempotentHint": tool.read_only,
                "openWorldHint": False,
            },
            "_meta": {SERVER: tool.group},
        }
        for name, tool in TOOLS.items()
        if tool.group in groups
    ]


def _schema(tool: type[ToolCall]) -> dict[str, Any]:
    """Without pydantic's titles and the class's docstring, which would cost a model tokens and tell it nothing."""
    schema = tool.model_json_schema(by_alias=True)
    schema.pop("description", None)
    schema.pop("title", None)
    for part in schema.get("properties", {}).values():
        part.pop("title", None)
    return schema
