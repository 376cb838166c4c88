"""Skeleton and style sheet of the page: one column, light and dark, narrow and wide screens."""

from string import Template

SKELETON = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1><p class="lead">$lead</p><nav>$navigation</nav></header>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
""")

STYLE = """
:root { --ink: #0f172a; --soft: #475569; --paper: #f8fafc; --card: #ffffff; --line: #e2e8f0;
  --accent: #2563eb; --good: #047857; --bad: #b91c1c; --warn: #fef3c7; --warn-ink: #78350f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --soft: #94a3b8; --paper: #0b1220; --card: #131c2e; --line: #26334a;
    --accent: #60a5fa; --good: #34d399; --bad: #f87171; --warn: #3b2f12; --warn-ink: #fde68a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.02em; }
h2 { font-size: 1.35rem; margin: 0 0 12px; letter-spacing: -0.01em; }
h3 { font-size: 1rem; margin: 22px 0 8px; }
.lead, figcaption, footer { color: var(--soft); }
.lead { max-width: 75ch; margin: 0 0 12px; }
nav a { display: inline-block; margin: 0 14px 6px 0; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 22px 24px;
  margin: 22px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-size: 0.82rem; color: var(--soft); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
.better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
figure { margin: 18px 0 4px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #ffffff; padding: 8px;
  border: 1px solid var(--line); border-radius: 10px; }
figcaption { font-size: 0.92rem; margin-top: 8px; max-width: 85ch; }
figcaption b { color: var(--ink); }
code, pre { font: 0.86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; margin: 6px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.missing { background: var(--warn); color: var(--warn-ink); border-radius: 10px; padding: 10px 14px; }
.missing li { overflow-wrap: anywhere; }
.facts th { width: 11em; }
footer { padding-bottom: 48px; font-size: 0.9rem; }
"""
