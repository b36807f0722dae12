"""Changes of a run that are not committed yet.

A run is ahead of the commits, and each activation must see the changes of the activation before it. A scope
is the state of a routine (`("state", routine_id)`) or the data of a job (`("job", number)`). Each scope maps
keys to JSON texts. The first write of a key to a scope copies the scope. A failed activation is undone key by
key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Scope = tuple[str, str | int]
Texts = dict[str, str]


class Overlay:
    """Reads come from `committed` until a scope is written."""

    __slots__ = ("_changed", "_committed", "_own", "_undo")

    def __init__(self, committed: Callable[[Scope], Texts | None]) -> None:
        self._committed = committed
        self._changed: dict[Scope, Texts] = {}
        self._own: set[Scope] = set()  # scopes whose texts are not shared
        self._undo: list[tuple[Scope, str | None, str | Texts | None]] = []

    def begin(self) -> None:
        """Start an activation. Its changes stay unless `undo` is called."""
        self._undo.clear()

    def read(self, scope: Scope) -> Mapping[str, str] | None:
        changed = self._changed.get(scope)
        return self._committed(scope) if changed is None else changed

    def set(self, scope: Scope, key: str, value: str) -> None:
        texts = self._writable(scope)
        self._undo.append((scope, key, texts.get(key)))
        texts[key] = value

    def replace(self, scope: Scope, texts: Texts) -> None:
        """Replace the scope by these texts, which must not be changed."""
        self._undo.append((scope, None, self._changed.get(scope)))
        self._own.discard(scope)
        self._changed[scope] = texts

    def undo(self) -> None:
        for scope, key, before in reversed(self._undo):
            if key is None:
                self._restore(scope, before)
            elif before is None:
                del self._changed[scope][key]
            else:
                assert isinstance(before, str)
                self._changed[scope][key] = before
        self._undo.clear()

    def _writable(self, scope: Scope) -> Texts:
        texts = self._changed.get(scope)
        if texts is None or scope not in self._own:
            self._undo.append((scope, None, texts))
            texts = self._changed[scope] = dict((self._committed(scope) if texts is None else texts) or {})
            self._own.add(scope)
        return texts

    def _restore(self, scope: Scope, before: object) -> None:
        self._own.discard(scope)
        if before is None:
            del self._changed[scope]
        else:
            assert isinstance(before, dict)
            self._changed[scope] = before
