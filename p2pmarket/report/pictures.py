"""Plots that lie in a folder as PNG, as many of them as a page can hold.

Knows: where plots lie. Refuses to know: what they show. A file that is no PNG is passed over and counted.
"""

from __future__ import annotations

from pathlib import Path

from p2pmarket.report.story import Picture
from p2pmarket.report.words import shown

MAX_PICTURE_BYTES = 500_000
MAX_PICTURES_BYTES = 2_500_000
"""Of all pictures of a page; as text in it they take a third more."""
_PNG = b"\x89PNG\r\n\x1a\n"


def pictures_in(folder: Path) -> tuple[dict[str, list[Picture]], int]:
    """Plots by the folder they lie in, or by their own name, and how many were too many, too large or none."""
    kept: dict[str, list[Picture]] = {}
    left, hidden = MAX_PICTURES_BYTES, 0
    for path in sorted(folder.rglob("*.png")):
        inside = [part for part in path.relative_to(folder).parts[:-1] if part != "plots"]
        if "runs" in inside or path.is_symlink():
            continue
        data = path.read_bytes() if path.stat().st_size <= min(left, MAX_PICTURE_BYTES) else b""
        if not data.startswith(_PNG):
            hidden += 1
            continue
        left -= len(data)
        title = shown(path.stem.replace("_", " ").replace("-", " "))
        kept.setdefault("/".join(inside) or path.stem, []).append(Picture(title, data))
    return kept, hidden
