"""Coroutines run to their end by a caller that is not async itself."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Sequence
from typing import Any


class PrivateLoop:
    """An asyncio loop that runs only while somebody waits for what it runs. Made when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> PrivateLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *coroutines: Coroutine[Any, Any, Any]) -> None:
        """All of them, side by side, until the last has ended. Raises what the first that failed raised.

        A thread that runs a loop already (an async test) cannot run another: then a thread is borrowed for as
        long as it takes, in the caller's context.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._run(coroutines)
            return
        errors: list[BaseException] = []

        def borrowed() -> None:
            try:
                self._run(coroutines)
            except BaseException as error:  # carried to the caller
                errors.append(error)

        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(borrowed,), name="routilux-test-loop"
        )
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def _run(self, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(_all(coroutines))

    def close(self) -> None:
        """Idempotent."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


async def _all(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> None:
    await asyncio.gather(*coroutines)
