"""Chromium without a window, without a network, with a profile of its own for each look at a page."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
)  # fmt: skip
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")

_WATCH = """<script>
window.seen = [];
addEventListener("error", event => seen.push("error: " + (event.message || event.target.outerHTML)), true);
addEventListener("securitypolicyviolation", event => seen.push("policy: " + event.blockedURI));
</script>"""
_TELL = """<script>
addEventListener("load", () => {
  const box = one => { const at = one.getBoundingClientRect(); return [at.width, at.height]; };
  const root = document.documentElement, style = getComputedStyle(document.body);
  root.dataset.probe = JSON.stringify({
    width: innerWidth, needs: root.scrollWidth, seen, script: root.classList.contains("script"),
    dark: matchMedia("(prefers-color-scheme: dark)").matches, ground: style.backgroundColor, ink: style.color,
    sections: [...document.querySelectorAll("section > h2, summary > h2")].map(one => one.textContent),
    charts: [...document.querySelectorAll("figure svg[role=img]")].filter(one => !one.closest("details")).map(box),
    stroke: (one => one && getComputedStyle(one).stroke)(document.querySelector("figure svg .line2d path, .axis path")),
    lines: [...document.querySelectorAll("figure svg path")].map(one => getComputedStyle(one).stroke),
    fetched: performance.getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("data:")),
  });
});
</script>"""


def find_browser() -> str | None:
    """The path of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a browser says of a page."""

    dom: str
    said: Any
    """What the probe in the page measured; empty for a page without one."""
    console: list[str]


class Browser:
    """A browser and a folder for what it writes."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def look(self, page: str, *flags: str, probe: bool = True) -> Look:
        """Loads a page from a file.

        :param probe: with scripts in it that measure, which its policy has to allow
        """
        return self._told(_probed(page) if probe else page, *flags)

    def frames(self, pages: Sequence[str], width: int) -> Look:
        """Loads pages at once, each in a frame of that width, with the probe: no window is as narrow as a phone. What
        they said is a list."""
        inside = "".join(
            f'<iframe width="{width}" height="900" srcdoc="{html.escape(_probed(one))}"></iframe>' for one in pages
        )
        collect = (
            "<script>addEventListener('load', () => { document.documentElement.dataset.probe = JSON.stringify("
            "[...document.querySelectorAll('iframe')].map("
            "one => JSON.parse(one.contentDocument.documentElement.dataset.probe))) })</script>"
        )
        return self._told(f"<!DOCTYPE html><html><body>{inside}{collect}</body></html>")

    def _told(self, text: str, *flags: str) -> Look:
        ran = self._run(text, "--dump-dom", "--window-size=1200,900", *flags)
        found = re.search(r'<html[^>]* data-probe="([^"]*)"', ran.stdout)
        console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
        return Look(ran.stdout, json.loads(html.unescape(found[1])) if found else {}, console)

    def picture(self, page: str, *flags: str) -> bytes:
        """A screenshot, as PNG."""
        path = self.folder / "picture.png"
        self._run(page, f"--screenshot={path}", "--window-size=1200,1600", *flags)
        return path.read_bytes()

    def printed_pages(self, page: str) -> int:
        """How many sheets it takes."""
        path = self.folder / "printed.pdf"
        self._run(page, "--no-pdf-header-footer", f"--print-to-pdf={path}")
        return len(re.findall(rb"/Type\s*/Page\b", path.read_bytes()))

    def _run(self, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
        page, profile = self.folder / "page.html", self.folder / "profile"
        page.write_text(text, encoding="utf-8")
        shutil.rmtree(profile, ignore_errors=True)
        command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def _probed(page: str) -> str:
    """A copy of a page with the probe, and a policy that lets it run; everything else of the policy stays."""
    allowed, count = re.subn(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
    assert count == 1, "the page has no policy"
    return allowed.replace("<title>", f"{_WATCH}<title>", 1).replace("</body>", f"{_TELL}</body>", 1)
