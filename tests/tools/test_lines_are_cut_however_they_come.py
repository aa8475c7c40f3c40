"""The bridge reads a child's output in chunks of any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pinnace.tools.serve.lines import Lines, Oversized

LIMIT = 50


@given(st.lists(st.binary(max_size=120).map(lambda line: line.replace(b"\n", b"."))), st.lists(st.integers(1, 200)))
def test_chunks_make_no_difference_and_only_too_long_lines_are_dropped(lines: list[bytes], sizes: list[int]) -> None:
    written = b"".join(line + b"\n" for line in lines)
    reader, got = Lines(LIMIT), []
    for size in [*sizes, len(written) + 1]:
        got += list(reader.feed(written[:size]))
        written = written[size:]
    expected = [Oversized(len(line), None) if len(line) > LIMIT else line.strip() for line in lines]
    assert got == [line for line in expected if line != b""]


def test_a_line_that_is_dropped_still_says_what_it_answers() -> None:
    reader = Lines(LIMIT)
    first = b'{"jsonrpc": "2.0", "id": 42, "result": "' + b"x" * 10_000 + b'"}\n'
    last = b'{"jsonrpc": "2.0", "result": "' + b"x" * 10_000 + b'", "id" : 43}\n'
    assert [item.id for item in reader.feed(first + last) if isinstance(item, Oversized)] == [42, 43]


def test_memory_is_bounded_while_a_line_has_no_end() -> None:
    reader = Lines(LIMIT)
    for _ in range(1000):
        assert list(reader.feed(b"x" * 10_000)) == []
    assert sum(len(part) for part in reader._parts) < 20_000
    (dropped,) = reader.feed(b"\n")
    assert dropped == Oversized(10_000_000, None)
