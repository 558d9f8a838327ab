"""Plots that lie in a folder as PNG, as many of them as a page can hold.

Knows: where plots lie. Refuses to know: what they show. What is no PNG, or no regular file, is passed over and counted.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from p2pmarket.experiments.reading import open_regular
from p2pmarket.experiments.results import PLOTS_FOLDER, RUN_FILE, RUNS_FOLDER
from p2pmarket.report.story import Picture
from p2pmarket.report.words import shown

MAX_PICTURE_BYTES = 500_000
MAX_PICTURES_BYTES = 2_500_000
"""Of all pictures of a page; as text in it they take a third more."""
DEPTH = 3
"""Folders below the first in which plots are looked for."""
_PNG = b"\x89PNG\r\n\x1a\n"


def pictures_in(
    folder: Path, only: Sequence[Path] | None = None, *, but: Container[Path] = ()
) -> tuple[dict[str, list[Picture]], int]:
    """Plots by the folder they lie in, or by their own name, and how many were too many, too large or none.

    :param only: the folders beneath it whose plots are meant; None: all
    :param but: files that are not meant
    """
    kept: dict[str, list[Picture]] = {}
    left, hidden = MAX_PICTURES_BYTES, 0
    roots = ((folder, DEPTH),) if only is None else tuple((one, 1) for one in only)
    for path in sorted(path for root, depth in roots for path in _pngs(root, depth) if path not in but):
        data = _png(path, min(left, MAX_PICTURE_BYTES))
        if not data:
            hidden += 1
            continue
        left -= len(data)
        inside = [part for part in path.relative_to(folder).parts[:-1] if part not in (PLOTS_FOLDER, RUNS_FOLDER)]
        title = shown(path.stem.replace("_", " ").replace("-", " "))
        kept.setdefault("/".join(inside) or path.stem, []).append(Picture(title, data))
    return kept, hidden


def _png(path: Path, most: int) -> bytes:
    """A picture's bytes; none where it is no PNG of that size at most."""
    try:
        with open_regular(path, most) as file:
            data = file.read(most)
    except (OSError, ValueError):
        return b""
    return data if data.startswith(_PNG) else b""


def _pngs(folder: Path, depth: int) -> Iterator[Path]:
    """Those beneath, but for what a single run left."""
    try:
        inside = list(folder.iterdir())
    except OSError:
        return
    for one in inside:
        try:
            if one.is_symlink():
                continue
            inner = one.is_dir() and not (one / RUN_FILE).exists()
            picture = one.suffix == ".png" and not one.is_dir()
        except OSError:
            continue
        if picture:
            yield one
        elif inner and depth > 0:
            yield from _pngs(one, depth - 1)
