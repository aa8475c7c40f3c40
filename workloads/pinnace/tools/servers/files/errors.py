"""Why a file is not read. The messages go to the model."""

from __future__ import annotations


class FileRefused(Exception):
    """The path leads out of the folder, over a symbolic link, or to something that is no file."""


class Unreadable(Exception):
    """The file does not exist, is damaged, encrypted, too large, or of a type that can't be read."""
