"""All figures, once, in the order of the page."""

from __future__ import annotations

from tests.benchmarks import busy, growth, idle, latency, posting, throughput
from tests.benchmarks.figure import Figure

FIGURES: tuple[Figure, ...] = tuple(
    figure for group in (throughput, posting, latency, idle, busy, growth) for figure in group.figures()
)


def select(only: list[str], *, is_full: bool) -> list[Figure]:
    """Figures whose name begins with one of `only`; without it all, but those that need BENCH_FULL=1.

    Raises `SystemExit` for a word that selects nothing.
    """
    for word in only:
        if not any(figure.name.startswith(word) for figure in FIGURES):
            names = ", ".join(figure.name for figure in FIGURES)
            raise SystemExit(f"no figure begins with {word!r}; there are: {names}")
    return [
        figure
        for figure in FIGURES
        if (is_full or not figure.is_full) and (not only or figure.name.startswith(tuple(only)))
    ]
