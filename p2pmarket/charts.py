"""Plots: matplotlib in one place, and the look that all pictures of this package share.

Knows: how to open a figure that needs no screen, and to write it as PNG or SVG. Refuses to know: what is drawn.
matplotlib is imported when a figure is opened; where it is missing that is a clear sentence.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from p2pmarket.errors import MachineFault
from p2pmarket.files import disk_errors, replacing

COLORS = ("#1f6fb2", "#d1495b", "#2e8b57", "#e0912f", "#7b5ea7", "#4d4d4d", "#17a2a2", "#a0522d")
"""Of lines that are compared, in this order; tellable apart by most readers."""
BASELINE = "#888888"
"""Of what has no market."""
METHOD_COLORS: Mapping[str, str] = {
    "market": COLORS[0],
    "fedavg": COLORS[1],
    "paper": COLORS[2],
    "unaligned": COLORS[3],
    "alone": BASELINE,
}
"""Of methods that are compared with one another, in every picture."""


@contextlib.contextmanager
def figure(
    rows: int = 1, columns: int = 1, *, width: float = 5.5, height: float = 4.0, **options: Any
) -> Iterator[Any]:
    """A figure and its axes, (rows, columns) of them always; closed at the end.

    :param width, height: of one axis, in inches
    :param options: as matplotlib's `subplots`
    :raises MachineFault: matplotlib is not installed
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise MachineFault("plots need matplotlib: pip install 'p2pmarket[research]'") from None
    size = (width * columns, height * rows)
    made, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, **options)
    try:
        for axis in axes.flat:
            axis.grid(alpha=0.3)
        yield made, axes
    finally:
        pyplot.close(made)


def save_png(made: Any, path: Path) -> None:
    """Writes a figure, or leaves the file as it was.

    :raises DiskFull, MachineFault: it cannot be written
    """
    made.tight_layout()
    with replacing(path, "the plot") as temporary, disk_errors("the plot", path):
        temporary.unlink()  # it is for its owner alone; the one that is opened here is as the umask has it
        made.savefig(temporary, dpi=130, format="png")


def svg(made: Any) -> str:
    """The figure as an <svg> element, with text as text."""
    import matplotlib

    made.tight_layout()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "p2pmarket"}):
        text = io.StringIO()
        made.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
