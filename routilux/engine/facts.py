"""Facts: what has happened, durably or on the way, by name. Subscribers ask for names; nothing else is built.

`activation.committed`, `job.ended` and `runtime.fenced` are examples. One subscriber words the log lines
(`log_lines`); users add their own by `Runtime.on`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(slots=True)
class Fact:
    """Something that has happened: a name and its fields."""

    name: str
    fields: dict[str, Any]


Subscriber = Callable[[Fact], None]


class Topic(Protocol):
    """A subscriber that listens only at times."""

    def __bool__(self) -> bool:
        """Whether it listens now."""

    def __call__(self, fact: Fact) -> None: ...


class Facts:
    """Who wants to know what.

    `on_error` is told of a subscriber that raised; the others are called all the same.
    """

    def __init__(self, on_error: Callable[[Fact, Exception], None]) -> None:
        self.subscribers: dict[str, list[Subscriber]] = {}  # by name of the fact
        self._topics: dict[str, list[Topic]] = {}
        self._on_error = on_error

    def subscribe(self, name: str, subscriber: Subscriber) -> None:
        """Call `subscriber` with each fact of this name, in the thread that reports it."""
        self.subscribers.setdefault(name, []).append(subscriber)

    def subscribe_at_times(self, name: str, topic: Topic) -> None:
        """As `subscribe`, while the topic is true."""
        self._topics.setdefault(name, []).append(topic)

    def wants(self, name: str) -> bool:
        """Whether a fact of this name is worth building."""
        return bool(self.subscribers.get(name)) or any(self._topics.get(name, ()))

    def report(self, name: str, **fields: Any) -> None:
        """Tell it if somebody wants it."""
        if self.wants(name):
            told = [Fact(name, fields)]
            self.tell_topics(told)
            self.tell_subscribers(told)

    def tell_topics(self, facts: Iterable[Fact]) -> None:
        """Tell the topics; they are part of the runtime and take no time."""
        for fact in facts:
            for topic in self._topics.get(fact.name, ()):
                topic(fact)

    def tell_subscribers(self, facts: Iterable[Fact]) -> None:
        """Call the subscribers of each fact. What one raises costs nobody else anything."""
        for fact in facts:
            for subscriber in self.subscribers.get(fact.name, ()):
                try:
                    subscriber(fact)
                except Exception as error:
                    self._on_error(fact, error)
