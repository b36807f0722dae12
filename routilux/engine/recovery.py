"""What is remembered for and after a commit that is not in: who waits, and what the database refuses."""

from __future__ import annotations

from collections.abc import Iterable

from routilux.core.outcome import Outcome
from routilux.engine.inputs import Input, PostIn

REJECTION_S = 60.0  # a message that did not come up again by then may never do so: its job has ended


class Rejections:
    """Activations whose commit was refused though it held nothing else: they fail when they come up again."""

    def __init__(self) -> None:
        self._errors: dict[tuple[int, int], tuple[BaseException, float]] = {}  # (worker, seq) -> error, since

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, outcome: Outcome, cause: BaseException, now_s: float) -> None:
        self._errors[outcome.run.cell.worker.key, outcome.activation.seqs[0]] = cause, now_s

    def pop(self, worker: int, seq: int) -> BaseException | None:
        """Why the activation that starts with this message must fail. Returns None if it may run."""
        found = self._errors.pop((worker, seq), None)
        return None if found is None else found[0]

    def prune(self, now_s: float) -> None:
        """Drop those that nothing came for."""
        since = now_s - REJECTION_S
        self._errors = {key: found for key, found in self._errors.items() if found[1] >= since}


class Recovery:
    """Owns rejections, the isolation of inputs, and the posts that wait for room."""

    def __init__(self) -> None:
        self.rejections = Rejections()
        self.waiting_posts: list[PostIn] = []
        self.isolate_next = 0  # so many outcomes go one per commit, to find the one that is refused

    # posts that wait for room in a full slot

    def take_waiting_posts(self) -> list[PostIn]:
        """They are tried again with each commit."""
        posts, self.waiting_posts = self.waiting_posts, []
        return posts

    def wait_for_room(self, posts: Iterable[PostIn]) -> None:
        self.waiting_posts.extend(posts)

    def undo_waits(self, inputs: Iterable[Input]) -> None:
        """The commit of these inputs is not in, so their posts do not wait yet: they would be there twice."""
        gone = {id(entry) for entry in inputs}
        self.waiting_posts = [post for post in self.waiting_posts if id(post) not in gone]

    # isolation

    def isolate(self, outcomes: int) -> None:
        """So many outcomes go one per commit from now on."""
        self.isolate_next = outcomes

    def isolated(self, entry: Input) -> None:
        """This input goes alone."""
        self.isolate_next -= isinstance(entry, Outcome)
