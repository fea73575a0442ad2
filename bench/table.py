"""The table beside hf_xet: each row with its goal, as README shows it, with its picture; and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.pages import fill

if TYPE_CHECKING:
    from bench.rows import Row

README: Final = Path(__file__).parents[1] / "README.md"
PICTURE: Final = Path(__file__).parent / "speed.svg"
PEAK_GOAL: Final = 0.5
"""Of hf_xet's peak memory, in every row."""

_HEAD = (
    "| | xetstore | hf_xet | ratio | goal | peak MiB | hf_xet | stored bytes, of hf_xet's | server CPU s/GB |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)
_LEFT, _TOP, _WIDTH, _STEP, _BAR = 250, 40, 720, 22, 14
_BAR_COLOUR, _GOAL_COLOUR = "#2f6f9f", "#c2571a"


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    return _HEAD + "".join(_line(row) for row in rows)


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """What the table says, and where it was measured."""
    return {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "rounds": len(rows[0].runs["ours"]),
        "rows": [
            {
                "what": row.what,
                "bytes": row.nbytes,
                "files": row.files,
                "ratio": round(row.ratio(), 3),
                "goal": row.goal,
                **{
                    who: {
                        figure: row.median(who, figure)
                        for figure in ("seconds", "cpu", "peak_mib", "server_cpu", "received", "sent", "stored")
                    }
                    for who in ("ours", "theirs")
                },
            }
            for row in rows
        ],
    }


def publish(rows: Sequence[Row], gib: float) -> None:
    """Write the table and the picture to where README shows them."""
    where = (
        f"{processor()}, {os.cpu_count()} cores, Linux; files of {gib:g} GiB on tmpfs; medians of "
        f"{len(rows[0].runs['ours'])} rounds, hf_xet 1.8.0 in turn with ours.\n\n"
    )
    PICTURE.write_text(picture([(row.what, row.ratio(), row.goal) for row in rows]))
    fill(README, {"speed": where + markdown(rows)})


def picture(bars: Sequence[tuple[str, float, float | None]]) -> str:
    """A bar for each (name, ratio, goal): how many times as fast as hf_xet; a mark where the goal is.

    A bar that is longer than the picture is cut, and has a break.
    """
    most = max(3.5, min(6.0, max(ratio for _, ratio, _ in bars)))
    scale = (_WIDTH - _LEFT - 60) / most
    bottom = _TOP + _STEP * len(bars) + 4
    height = bottom + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        "<title>How many times as fast as hf_xet</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<rect x="{_LEFT}" y="10" width="28" height="{_BAR}" fill="{_BAR_COLOUR}"/>',
        f'<text x="{_LEFT + 34}" y="21" fill="#222222">xetstore, as a multiple of hf_xet (1×)</text>',
        f'<path d="M{_LEFT + 276} 7V27" stroke="{_GOAL_COLOUR}" stroke-width="2"/>',
        f'<text x="{_LEFT + 284}" y="21" fill="#222222">the goal</text>',
    ]
    for times in range(int(most) + 1):
        x = _LEFT + times * scale
        colour = "#888888" if times == 1 else "#e4e4e4"
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 4}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555555">{times}×</text>')
    for number, (name, ratio, goal) in enumerate(bars):
        y = _TOP + number * _STEP
        length = min(ratio, most) * scale
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end" fill="#222222">{name}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_BAR_COLOUR}"/>',
            f'<text x="{_LEFT + length + 6:.1f}" y="{y + 11}" fill="#222222">{ratio:.2f}</text>',
        ]
        if ratio > most:
            x = _LEFT + length - 26
            stripe = f"M{x:.1f} {y + _BAR + 2}l8 {-_BAR - 4}"
            parts.append(f'<path d="{stripe}m6 0l-8 {_BAR + 4}" stroke="#ffffff" stroke-width="3" fill="none"/>')
        if goal:
            x = _LEFT + goal * scale
            parts.append(f'<path d="M{x:.1f} {y - 3}V{y + _BAR + 3}" stroke="{_GOAL_COLOUR}" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def processor() -> str:
    """What the system calls this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _line(row: Row) -> str:
    peaks = " | ".join(f"{row.median(who, 'peak_mib'):.0f}" for who in ("ours", "theirs"))
    stored = row.median("theirs", "stored")
    share = f"{row.median('ours', 'stored') / stored:.5f}" if stored else ""
    moved = row.median("ours", "received") + row.median("ours", "sent")
    server = f"{row.median('ours', 'server_cpu') / row.nbytes * 1e9:.2f}" if moved else ""
    rates = " | ".join(row.rate(who) for who in ("ours", "theirs"))
    return f"| {row.what} | {rates} | **{row.ratio():.2f}** | {row.goal or ''} | {peaks} | {share} | {server} |\n"
