"""Results that are too large: cut to size, the whole of it in S3 by reference."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from pinnace.tools.gateway import wire
from pinnace.tools.gateway.store import NoStore, Store

_STEPS = (65_536, 16_384, 4_096, 1_024, 256)  # longest string of structured content, tried in turn
_SUFFIX = {"image/png": "png", "image/jpeg": "jpg", "audio/wav": "wav", "application/pdf": "pdf"}


async def cap(result: Mapping[str, Any], *, limit: int, store: Store, request_id: str) -> dict[str, Any]:
    """The result in at most about `limit` bytes.

    Text is cut (the beginning stays), images, audio and files that do not fit become links, the longest strings and
    lists of structured content are cut so that its shape stays. The whole result is stored under `request_id`; where it
    can't be, the text says so.
    """
    whole = wire.dumps(result)
    if len(whole) <= limit:
        return dict(result)
    try:
        where = await store.write(f"results/{request_id}.json", whole)
        note = f"the whole result ({len(whole)} bytes) is at {where}"
    except NoStore as error:
        where, note = "", f"the rest of {len(whole)} bytes is lost: {error}"
    blocks: list[dict[str, Any]] = []
    left = limit if result.get("structuredContent") is None else limit // 2
    for number, block in enumerate(result.get("content") or []):
        kept = await _block(block, left, store=store, name=f"results/{request_id}-{number}")
        left = max(0, left - len(wire.dumps(kept)))
        blocks.append(kept)
    blocks.append({"type": "text", "text": f"[cut by the gateway: {note}]"})
    if where:
        blocks.append({"type": "resource_link", "uri": where, "name": "whole result", "mimeType": "application/json"})
    capped = {**result, "content": blocks}
    if result.get("structuredContent") is not None:
        capped["structuredContent"] = shrink(result["structuredContent"], limit // 2)
    return capped


async def _block(block: Mapping[str, Any], left: int, *, store: Store, name: str) -> dict[str, Any]:
    size = len(wire.dumps(block))
    if size <= left:
        return dict(block)
    if block.get("type") == "text":
        return {**block, "text": str(block.get("text", "")).encode()[:left].decode(errors="ignore")}
    data, mime = _payload(block)
    if data is not None:
        try:
            where = await store.write(f"{name}.{_SUFFIX.get(mime, 'bin')}", data)
            return {"type": "resource_link", "uri": where, "name": str(block.get("type")), "mimeType": mime}
        except NoStore:
            pass
    return {"type": "text", "text": f"[{block.get('type')}, {mime or 'unknown type'}, {size} bytes: too large]"}


def _payload(block: Mapping[str, Any]) -> tuple[bytes | None, str]:
    resource = block.get("resource")
    holder = resource if isinstance(resource, Mapping) else block
    mime = str(holder.get("mimeType", ""))
    if isinstance(holder.get("text"), str):
        return holder["text"].encode(), mime
    try:
        text = holder.get("data") or holder.get("blob") or ""
        return (base64.b64decode(text, validate=True) or None), mime
    except (binascii.Error, ValueError, TypeError):
        return None, mime


def shrink(value: Any, limit: int) -> Any:
    """`value` with strings and lists cut until it takes at most `limit` bytes; as small as it gets, if it can't."""
    small = value
    for longest in _STEPS:
        small = _trim(value, longest)
        if len(wire.dumps(small)) <= limit:
            break
    return small


def _trim(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + "…"
    if isinstance(value, list):
        return [_trim(each, longest) for each in value[: max(8, longest // 16)]]
    if isinstance(value, dict):
        return {key: _trim(each, longest) for key, each in value.items()}
    return value
