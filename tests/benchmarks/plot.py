"""A bar for each target, as an SVG text: how much of it is reached, on a logarithmic scale, 1 is the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.benchmarks.figure import Figure, Spread, Target, Verdict

LABEL, WIDTH, ROW, DECADE = 430, 420, 18, 1.0
GREEN, RED, GREY = "#2a7f4f", "#b5443c", "#8a8f98"


def picture(targets: Sequence[tuple[Figure, Target, Verdict, Spread | None]]) -> str:
    """`targets`: what `table.targets` gives."""
    rows = [
        (f"{figure.title}: {verdict.words}", reached)
        for figure, target, verdict, found in targets
        if (reached := _reached(figure, target, verdict, found)) is not None
    ]
    height = ROW * (len(rows) + 3)
    middle = LABEL + WIDTH / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 60}" height="{height}"'
        f' font-family="system-ui, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for share in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        x = middle + _offset(share)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{ROW}" y2="{height - ROW}" stroke="{GREY}"'
            f' stroke-width="{1.5 if share == 1 else 0.3}"/>'
            f'<text x="{x:.1f}" y="{ROW - 5}" text-anchor="middle" fill="{GREY}">{share:g} ×</text>'
        )
    for number, (words, reached) in enumerate(rows):
        y = ROW * (number + 1.4)
        x = middle + _offset(reached)
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 11:.1f}" text-anchor="end" fill="#222">{escape(words)}</text>'
            f'<rect x="{min(x, middle):.1f}" y="{y:.1f}" width="{abs(x - middle):.1f}" height="{ROW - 6}"'
            f' fill="{GREEN if reached >= 1 else RED}"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _reached(figure: Figure, target: Target, verdict: Verdict, found: Spread | None) -> float | None:
    """1: just met; above: better, whichever way is better."""
    value = verdict.found if target.of is not None else (found.median if found is not None else None)
    if value is None or verdict.is_met is None:
        return None
    if target.bound == 0:
        return 10.0 if verdict.is_met else 0.1
    if figure.metric(target.metric).is_higher_better is not False:
        return value / target.bound
    return target.bound / value if value > 0 else 10.0


def _offset(share: float) -> float:
    """From the middle, in pixels: ten times as much is the edge."""
    return max(-1.0, min(1.0, math.log10(max(share, 1e-9)) / DECADE)) * WIDTH / 2
