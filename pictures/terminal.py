"""The terminal output of a program as an SVG."""

from __future__ import annotations

import html
import os
import re
import subprocess
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS = 112
_THEME = TerminalTheme(
    (30, 33, 39),
    (214, 218, 224),
    [
        (60, 64, 72), (237, 106, 94), (126, 200, 110), (229, 192, 90),
        (110, 170, 250), (198, 140, 230), (90, 195, 205), (214, 218, 224),
    ],
)  # fmt: skip
"""Background, text, and the eight colours in ANSI order."""
_CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n")


class ProgramFailed(Exception):
    """The program failed; the text contains its output."""


def shown(command: Sequence[str], *, timeout_s: float) -> list[str]:
    """Run a command and return the final lines on its terminal, with colours as ANSI codes.

    Raises ProgramFailed, or TimeoutExpired after `timeout_s`.
    """
    # FORCE_COLOR lets programs that use rich treat a pipe like a terminal.
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s)
    output = done.stdout.decode()  # not in text mode, which would turn a carriage return into a new line
    if done.returncode:
        raise ProgramFailed(f"{' '.join(command)} failed with status {done.returncode}:\n{output}")
    return settled(output)


def settled(output: str) -> list[str]:
    """Return the lines after all overwriting.

    Of ECMA-48 it supports what rich uses for live output. It applies cursor up (CUU), erase in line (EL) and carriage
    return, keeps colours (SGR), and drops other codes.
    """
    lines, row, at = [""], 0, 0
    for code in _CODE.finditer(output):
        lines[row] += output[at : code.start()]
        at = code.end()
        if code[0] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code[2] == "A":
            row = max(0, row - int(code[1] or 1))
        elif code[2] == "K":
            lines[row] = ""
        elif code[2] == "m":
            lines[row] += code[0]
    lines[row] += output[at:]
    return lines


def _trimmed(lines: list[str]) -> list[str]:
    """Return the lines without empty ones at the end."""
    while lines and not Text.from_ansi(lines[-1]).plain.strip():
        lines = lines[:-1]
    return lines


def draw(lines: Sequence[str], title: str, file: Path) -> None:
    """Write the lines as the SVG of a terminal window."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for line in [*lines, ""]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title=title, theme=_THEME, code_format=_FORMAT, unique_id=file.stem)
    svg = _TEXT.sub(_without_spaces, svg).replace("</text><text", "</text>\n<text")
    file.write_text("\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n")


def parts(lines: Sequence[str]) -> list[list[str]]:
    """Return the lines of each part, which starts with a title and a rule."""
    found: list[list[str]] = []
    for line in lines:
        if "─" * 10 in line:
            found.append([])
        if found:
            found[-1].append(line)
    return [_trimmed(part) for part in found]


def _without_spaces(found: re.Match[str]) -> str:
    """Return a text of rich in place without spaces around it: some viewers drop them."""
    content = html.unescape(found["content"]).replace("\xa0", " ")
    left, width = float(found["x"]), float(found["width"])
    cell = width / len(content)
    left += cell * (len(content) - len(content.lstrip()))
    words = content.strip()
    if not words:
        return ""
    escaped = html.escape(words).replace(" ", "&#160;")
    return f'<text{found["style"]} x="{left:g}" y="{found["y"]}" textLength="{cell * len(words):g}">{escaped}</text>'


_TEXT = re.compile(
    r'<text(?P<style> class="[^"]*") x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" textLength="(?P<width>[\d.]+)" [^>]*>'
    r"(?P<content>[^<]*)</text>"
)

_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: ui-sans-serif, "DejaVu Sans", Helvetica, Arial, sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""The template of rich, but with local fonts: a picture must not load fonts from a server."""
