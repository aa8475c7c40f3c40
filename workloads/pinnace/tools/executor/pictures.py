"""Pictures that a cell made: open matplotlib figures, and a last value that knows how to draw itself."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

_MOST = 4
_BYTES = 2 * 1024 * 1024


def pictures(value: Any) -> list[dict[str, str]]:
    """As MCP wants them: `{mimeType, data}`, base64. Figures are closed. At most four, 2 MiB each; the rest is told.

    Nothing is imported: a library that the cell did not load has made nothing.
    """
    found: list[bytes] = []
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and hasattr(pyplot, "get_fignums"):
        for number in pyplot.get_fignums():
            buffer = io.BytesIO()
            pyplot.figure(number).savefig(buffer, format="png", bbox_inches="tight")
            found.append(buffer.getvalue())
        pyplot.close("all")
    image = sys.modules.get("PIL.Image")
    if image is not None and isinstance(value, image.Image):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        found.append(buffer.getvalue())
    kept = [picture for picture in found if len(picture) <= _BYTES][:_MOST]
    if len(kept) < len(found):
        left_out = len(found) - len(kept)
        print(f"[{left_out} of {len(found)} pictures left out: at most {_MOST} of 2 MiB; save them to files]")
    return [{"mimeType": "image/png", "data": base64.b64encode(picture).decode()} for picture in kept]
