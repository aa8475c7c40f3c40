"""Reading files by their type, inside one folder."""

from pinnace.tools.servers.files.errors import FileRefused, Unreadable
from pinnace.tools.servers.files.read import Document, read
from pinnace.tools.servers.files.root import Root

__all__ = ["Document", "FileRefused", "Root", "Unreadable", "read"]
