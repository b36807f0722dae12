"""What a text column can hold."""

from __future__ import annotations


def is_storable(text: object) -> bool:
    """Whether a text column could hold this value. If not, a search for it finds nothing."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
