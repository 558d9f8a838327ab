"""How a page looks and the little that it does: its style and its script, as texts.

Knows: CSS and JavaScript. Refuses to know: what is on the page. Everything is inside the page: no font, picture or
script is fetched. Colours are variables, so that one SVG serves light, dark and paper. Contrast of text is at least
4.5 : 1 on its ground (WCAG 2.1, success criterion 1.4.3).
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --card: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d9dde2; --grid: #e3e6ea;
  --link: #0b5cad; --good: #1a7f4b; --bad: #b3261e; --good-ground: #e5f4ec; --bad-ground: #fbe9e7;
  --s0: #1f6fb2; --s1: #d1495b; --s2: #2e8b57; --s3: #d9831f; --s4: #7b5ea7; --s5: #4d4d4d; --s6: #1798a0;
  --s7: #a0522d; --s-base: #8a9199; --heat: 31 111 178;
}
@media screen and (prefers-color-scheme: dark) { :root {
  --ground: #0f1216; --card: #181c22; --ink: #e8eaed; --soft: #a5adb8; --line: #303740; --grid: #2a3038;
  --link: #7db8f2; --good: #5fd39a; --bad: #ff8f85; --good-ground: #14291f; --bad-ground: #351b19;
  --s0: #5aa9ec; --s1: #f0788a; --s2: #5cc48c; --s3: #f0b05a; --s4: #b296e0; --s5: #c0c4ca; --s6: #4fd0d6;
  --s7: #d69468; --s-base: #8a929c; --heat: 70 150 225;
} }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer, nav { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
.kind { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .06em; text-transform: uppercase;
  font-weight: 600; }
h1 { margin: 4px 0 10px; font-size: 2rem; line-height: 1.15; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 1.3rem; letter-spacing: -.005em; overflow-wrap: anywhere; }
h3 { margin: 0 0 2px; font-size: 1rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.headline { margin: 0; font-size: 1.15rem; max-width: 62em; overflow-wrap: anywhere; }
.warnings { margin: 20px 0 0; padding: 12px 18px; border-left: 4px solid var(--bad); background: var(--bad-ground);
  border-radius: 6px; overflow-wrap: anywhere; }
.warnings p { margin: 4px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 0;
  padding: 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; margin: 0;
  display: flex; flex-direction: column; min-width: 0; overflow-wrap: anywhere; }
.tile dt { color: var(--soft); font-size: .82rem; }
.tile dd { margin: 0; }
.tile .value { font-size: 1.35rem; font-weight: 650; line-height: 1.35; font-variant-numeric: tabular-nums; }
.tile .note { color: var(--soft); font-size: .82rem; }
.good .value, .words.good { color: var(--good); }
.bad .value, .words.bad { color: var(--bad); }
nav { position: sticky; top: 0; z-index: 2; margin-top: 20px; max-width: none; background: var(--ground);
  border-bottom: 1px solid var(--line); }
nav ul { display: flex; gap: 4px 18px; overflow-x: auto; list-style: none; margin: 0 auto; padding: 9px 0;
  max-width: 1072px; scrollbar-width: none; }
nav a { white-space: nowrap; text-decoration: none; font-size: .9rem; }
nav a:hover { text-decoration: underline; }
section, details.section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 22px 24px; margin: 20px 0; scroll-margin-top: 52px; }
details.section > summary { cursor: pointer; }
details.section > summary h2 { display: inline; font-size: 1.1rem; }
.about { color: var(--soft); margin: 4px 0 0; max-width: 70em; }
.parts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 26px 32px; margin-top: 16px; }
.parts > .wide { grid-column: 1 / -1; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 8px; color: var(--soft); font-size: .86rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: inherit; }
figure.heat svg { max-width: 560px; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 0 8px; padding: 0;
  font-size: .86rem; }
.legend li { display: flex; align-items: center; gap: 7px; min-width: 0; overflow-wrap: anywhere; }
.legend svg { width: 20px; height: 12px; flex: none; }
.nothing { border: 1px dashed var(--line); border-radius: 8px; padding: 26px 16px; text-align: center;
  color: var(--soft); margin: 0; }
.table { min-width: 0; }
.table h3, .matrix h3, .picture h3 { margin-bottom: 6px; }
.scroll { overflow: auto; border: 1px solid var(--line); border-radius: 8px; }
.scroll.long { max-height: 900px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: break-word; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600;
  white-space: nowrap; box-shadow: inset 0 -1px var(--line); }
tbody th { font-weight: 600; }
.right, td:first-child { white-space: nowrap; }
.right { text-align: right; }
.small { color: var(--soft); font-size: .84rem; margin: 6px 0 0; }
.matrix .scroll { width: fit-content; max-width: 100%; }
.matrix table { width: auto; }
.matrix thead th { white-space: normal; }
.matrix th, .matrix td { text-align: center; border: 1px solid var(--line); padding: 7px 12px; min-width: 74px; }
.matrix tbody th { text-align: right; position: sticky; left: 0; background: var(--card); }
.matrix td { background: rgb(var(--heat) / calc(var(--v) * .5)); }
.matrix td span { display: block; font-size: .8rem; }
.matrix td.none { color: var(--soft); }
.words p { margin: 4px 0; max-width: 75em; overflow-wrap: anywhere; }
.filter { display: none; margin: 0 0 6px; font: inherit; font-size: .88rem; padding: 4px 9px; width: 16em;
  max-width: 100%; color: inherit; background: var(--card); border: 1px solid var(--soft); border-radius: 6px; }
.script .filter { display: block; }
footer { color: var(--soft); font-size: .84rem; padding-top: 8px; padding-bottom: 40px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media screen and (max-width: 760px) {
  main, header, footer, nav { padding-left: 14px; padding-right: 14px; }
  header { padding-top: 22px; }
  h1 { font-size: 1.5rem; }
  .headline { font-size: 1.03rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile { padding: 10px 12px; }
  .tile .value { font-size: 1.2rem; }
  section, details.section { padding: 16px 14px; margin: 14px 0; border-radius: 10px; }
  .parts { grid-template-columns: minmax(0, 1fr); gap: 24px; }
  th, td { padding: 5px 8px; }
  .table.wide td:last-child:not(.right) { min-width: 22em; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  :root { --ground: #fff; color-scheme: light; }
  html { font-size: 11px; }
  body { font-size: 1rem; }
  main, header, footer { max-width: none; padding: 0; }
  .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
  .tile { padding: 6px 10px; }
  nav, .filter { display: none !important; }
  section, details.section { border: 0; padding: 0; margin: 18px 0; }
  figure, .tile, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll, .scroll.long { max-height: none; overflow: visible; border: 0; }
  th, td { padding: 3px 6px; }
  thead th { position: static; }
}
"""

SCRIPT = """
document.documentElement.classList.add("script");
for (const box of document.querySelectorAll(".filter")) {
  const rows = box.parentElement.querySelectorAll("tbody tr");
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
"""
