"""The demo's picture: every file of every version as a bar, each chunk in the colour of the version that brought it."""

from __future__ import annotations

from pathlib import Path

from xetstore.store import hash_report

COLOURS = ("#4c78a8", "#f58518", "#54a24b")
LEFT, WIDTH, BAR, GAP = 110, 1000, 26, 8


def draw(versions: list[list[Path]], target: Path) -> None:
    """Write an SVG: bars to scale within each file name, one row a version."""
    names = [path.name for path in versions[0]]
    shapes: list[str] = []
    top = 50
    for column, name in enumerate(names):
        files = [files[column] for files in versions]
        scale = WIDTH / max(path.stat().st_size for path in files)
        shapes.append(_text(10, top, name, weight="bold"))
        top += 14
        first_seen: dict[bytes, int] = {}
        for number, path in enumerate(files):
            shapes.append(_text(10, top + 18, f"v{number + 1}"))
            shapes += _bar(path, number, first_seen, top, scale)
            top += BAR + GAP
        top += 30
    legend = "".join(
        _rect(LEFT + 230 * i, 12, 14, 14, colour)
        + _text(LEFT + 230 * i + 20, 24, f"chunks that version {i + 1} brought")
        for i, colour in enumerate(COLOURS)
    )
    size = f'width="{LEFT + WIDTH + 20}" height="{top}"'
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="white"/>{legend}{"".join(shapes)}</svg>\n'
    )


def _bar(path: Path, number: int, first_seen: dict[bytes, int], top: int, scale: float) -> list[str]:
    chunks = hash_report(path, keep_chunks=True).chunks
    assert chunks is not None
    shapes = []
    at = run_start = 0
    colour: str | None = None
    for i, length in enumerate(chunks.sizes):
        version = first_seen.setdefault(chunks.digest(i), number)
        if COLOURS[version] != colour:
            if colour is not None:
                shapes.append(_rect(LEFT + run_start * scale, top, (at - run_start) * scale, BAR, colour))
            run_start, colour = at, COLOURS[version]
        at += length
    if colour is not None:
        shapes.append(_rect(LEFT + run_start * scale, top, (at - run_start) * scale, BAR, colour))
    return shapes


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    # At least half a pixel, so that a single changed chunk can be seen.
    return f'<rect x="{x:.2f}" y="{y}" width="{max(width, 0.5):.2f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}">{text}</text>'
