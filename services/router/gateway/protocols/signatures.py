"""Gemini's thought signatures, carried in the ids of tool calls.

Gemini refuses a conversation whose tool calls come back without the signature that they were given, and neither
OpenAI's nor Anthropic's protocol has a field for one that clients would send back. The id of a call is what every
client does send back, so the signature travels behind it, and nobody has to remember conversations.
"""

from __future__ import annotations

import base64
import binascii

MARK = "_mmsig_"


def packed(id: str, signature: str) -> str:
    """The id with the signature (base64) behind it, in letters, digits, `_` and `-`, as Anthropic's ids must be."""
    if not signature:
        return id
    return id + MARK + signature.replace("+", "-").replace("/", "_").rstrip("=")


def unpacked(id: str) -> tuple[str, str]:
    """The provider's own id and the signature, which is empty if there is none."""
    own, mark, packed_signature = id.partition(MARK)
    if not mark:
        return id, ""
    signature = packed_signature.replace("-", "+").replace("_", "/")
    signature += "=" * (-len(signature) % 4)
    try:
        base64.b64decode(signature, validate=True)
    except binascii.Error:
        return id, ""
    return own, signature
