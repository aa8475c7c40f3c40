"""Paths below one folder, whatever lies in it; no container needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pinnace.tools.executor import linux
from pinnace.tools.executor.capture import Capture
from pinnace.tools.executor.frames import BadFrame, Decoder, encode
from pinnace.tools.executor.workspace import FileProblem, Workspace, empty


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with links that stay inside and links that don't; a secret lies beside it."""
    inside = tmp_path / "workspace"
    (inside / "a").mkdir(parents=True)
    (inside / "a" / "b.txt").write_text("inside")
    (inside / "stays").symlink_to("a")
    (inside / "leaves").symlink_to(tmp_path)
    (inside / "file-leaves").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    return inside


@pytest.mark.parametrize("path", ["leaves/secret", "file-leaves", "../secret", "a/../../secret", "/etc/passwd"])
def test_a_path_that_leaves_is_denied(folder: Path, path: str) -> None:
    with pytest.raises(FileProblem) as caught:
        Workspace(str(folder)).read(path, 100)
    assert caught.value.kind == "denied"


@pytest.mark.parametrize("path", ["a/b.txt", "stays/b.txt", "./a//b.txt", "a/../a/b.txt"])
def test_a_path_that_stays_is_read(folder: Path, path: str) -> None:
    assert Workspace(str(folder)).read(path, 100) == b"inside"


@pytest.mark.parametrize("path", ["leaves/secret", "file-leaves", "stays/b.txt", "../secret", "/etc/passwd"])
def test_without_openat2_every_link_is_refused(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_SYS_OPENAT2", 100_000)  # a kernel that does not know it
    workspace = Workspace(str(folder))
    assert workspace.read("a/b.txt", 100) == b"inside"
    with pytest.raises(FileProblem):
        workspace.read(path, 100)


def test_a_write_replaces_a_link_and_does_not_follow_it(folder: Path) -> None:
    Workspace(str(folder)).write("file-leaves", b"mine")
    assert (folder / "file-leaves").read_bytes() == b"mine"
    assert (folder.parent / "secret").read_text() == "secret"


def test_a_folder_is_emptied_however_deep_and_closed_it_is(folder: Path) -> None:
    current = os.open(folder, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python recurses and than a path can name
        os.mkdir("deep", dir_fd=current)
        below = os.open("deep", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    (folder / "a").chmod(0)
    empty(str(folder))
    assert list(folder.iterdir()) == []
    assert (folder.parent / "secret").exists()


def test_what_is_kept_of_a_long_output_is_its_start_and_end() -> None:
    capture = Capture(300)
    for number in range(1000):
        capture.feed(f"{number:04}\n".encode())
    text, left_out = capture.take()
    assert text.startswith("0000\n0001\n")
    assert text.endswith("0998\n0999\n")
    assert left_out == 5000 - 300
    assert capture.take() == ("", 0)


def test_frames_are_whole_or_refused() -> None:
    decoder = Decoder(largest=100)
    data = encode({"a": 1}) + encode({"b": 2})
    assert [message for byte in data for message in decoder.feed(bytes([byte]))] == [{"a": 1}, {"b": 2}]
    with pytest.raises(BadFrame, match="101 bytes"):
        decoder.feed((101).to_bytes(4, "big"))
