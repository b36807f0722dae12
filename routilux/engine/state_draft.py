"""The state of one routine while a commit is decided.

What other threads read changes only when all is decided.
"""

from __future__ import annotations

from collections.abc import Iterator

Texts = dict[str, str]


class StateDraft:
    """Many activations of a commit write it; what becomes rows is the difference between its ends."""

    __slots__ = ("_keys", "before", "texts")

    def __init__(self, before: Texts | None) -> None:
        self.before = before
        self.texts = before
        self._keys: set[str] | None = (
            None  # those that were set since `texts` became a copy; None: it is shared
        )

    def get(self, key: str) -> str | None:
        return None if self.texts is None else self.texts.get(key)

    def replace(self, texts: Texts) -> None:
        """It is now exactly this. The texts stay shared: nobody changes them."""
        self.texts = texts
        self._keys = None

    def set(self, key: str, text: str) -> None:
        if self._keys is None or self.texts is None:
            shared = self.texts or {}
            self._keys = set() if self.texts is self.before else {*shared, *(self.before or ())}
            self.texts = dict(shared)
        self.texts[key] = text
        self._keys.add(key)

    def changed(self) -> Iterator[tuple[str, str | None]]:
        """Keys whose rows differ now; None: the row goes.

        An empty state, which is not an absent one, has a row of key "".
        """
        before, after = self.before or {}, self.texts or {}
        for key in {*before, *after} if self._keys is None else self._keys:
            if before.get(key) != after.get(key):
                yield key, after.get(key)
        if not after:
            yield "", ""
        elif self.before is not None and not before and "" not in after:
            yield "", None
