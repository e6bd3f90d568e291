"""The dashboard, drawn with matplotlib as one SVG.

All lengths are in its pixels.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import IdentityTransform

from pictures import values
from pictures.dashboard import Line, Panel, Place, Span

_WIDTH, _HEADER, _MARGIN, _GAP, _ROW = 1200, 44, 10, 8, 29
_PAPER, _CARD, _EDGE, _INK, _DIM, _RULE = "#f4f5f5", "#ffffff", "#dcdde0", "#24292e", "#6e7681", "#ececee"
_NAMED = {"green": "#56a64b", "blue": "#3274d9", "orange": "#ff780a", "red": "#e02f44", "text": "#b8bcc2"}
_SERIES = ("#56a64b", "#3274d9", "#ff780a", "#8f3bb8", "#e0b400", "#12a5a5", "#e02f44", "#806eb7")
_TITLE, _SMALL = 12.0, 10.0
_LEGEND_LINE, _SWATCH = 15.0, 18.0

Samples = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, measured from the left and top of the picture."""

    left: float
    top: float
    width: float
    height: float

    def within(self, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Box:
        """Return the rectangle without these margins."""
        return Box(self.left + left, self.top + top, self.width - left - right, self.height - top - bottom)


@dataclass(frozen=True, slots=True)
class Shown:
    """A panel and its lines."""

    panel: Panel
    lines: Sequence[Line]


class Picture:
    """A dashboard over one time range; `save` writes it."""

    def __init__(self, title: str, span: Span, rows: int) -> None:
        """`rows` is the height in units of the grid."""
        self._height = _HEADER + rows * _ROW + _MARGIN
        self._span = span
        self._figure = Figure(figsize=(_WIDTH / 72, self._height / 72), dpi=72, facecolor=_PAPER)
        self._text(title, _MARGIN + 4, _HEADER / 2 + 2, size=17, weight="bold")
        times = f"{_clock(span.start_s)} – {_clock(span.end_s)} UTC"
        self._text(times, _WIDTH - _MARGIN - 4, _HEADER / 2 + 2, colour=_DIM, align="right")

    def draw(self, shown: Shown) -> None:
        """Draw one panel at its place."""
        panel, box = shown.panel, _box(shown.panel.place)
        if panel.type == "row":
            note = f"   ({len(panel.folded)} panels)" if panel.folded else ""
            self._text(f"{'▸' if panel.folded else '▾'}  {panel.title}", box.left + 2, box.top + 11, weight="bold")
            self._text(note, box.left + 18 + _width(panel.title, _TITLE, weight="bold"), box.top + 11, colour=_DIM)
            return
        self._card(box)
        if panel.type == "stat":
            self._stat(panel, shown.lines, box)
            return
        self._text(panel.title, box.left + 10, box.top + 15, weight="bold")
        draw = {"timeseries": self._time_series, "state-timeline": self._state_timeline}[panel.type]
        draw(panel, shown.lines, box)

    def save(self, file: Path) -> None:
        """Write the picture as SVG.

        Texts stay texts, and the file depends on nothing but the data.
        """
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name, "font.sans-serif": _FONTS}):
            self._figure.savefig(file, format="svg", facecolor=_PAPER, metadata={"Date": None, "Creator": None})
        file.write_text(_compact(file.read_text()))

    # ------------------------------------------------------------------------------------------- kinds of panels

    def _stat(self, panel: Panel, lines: Sequence[Line], box: Box) -> None:
        """Draw the last value in the colour of its threshold, above the past values."""
        middle = box.left + box.width / 2
        self._text(panel.title, box.left + 10, box.top + 15, weight="bold")
        if not lines:
            self._text("no data", middle, box.top + 52, align="center", colour=_DIM)
            return
        samples = lines[0].samples
        last = samples[-1][1]
        fixed = panel.defaults.get("color", {}).get("fixedColor", "text")
        colour = _NAMED[panel.threshold_colour(last) or fixed]
        axes = self._axes(box.within(top=box.height * 0.64, bottom=1, left=1, right=1), framed=False)
        axes.fill_between([at for at, _ in samples], [value for _, value in samples], color=colour, alpha=0.15, lw=0)
        axes.plot([at for at, _ in samples], [value for _, value in samples], color=colour, lw=1, alpha=0.6)
        axes.set_ylim(0, max(value for _, value in samples) * 1.05 or 1.0)
        self._text(values.written(last, panel.unit), middle, box.top + 50, size=27, align="center", colour=colour)

    def _time_series(self, panel: Panel, lines: Sequence[Line], box: Box) -> None:
        if not lines:
            self._text("no data", box.left + box.width / 2, box.top + box.height / 2, align="center", colour=_DIM)
            return
        colours = _colours(panel, lines)
        legend = self._legend([(line.name, colours[line.name]) for line in lines], box)
        axes = self._axes(box.within(left=62, right=14, top=32, bottom=26 + legend))
        stacked = panel.custom.get("stacking", {}).get("mode") == "normal"
        opacity = panel.custom.get("fillOpacity", 0) / 100
        curves = _stacked(lines, self._span) if stacked else _apart(lines, self._span)
        for line, curve in zip(lines, curves, strict=True):
            colour = colours[line.name]
            axes.plot(curve.times, curve.top, color=colour, lw=panel.custom.get("lineWidth", 1))
            if opacity:
                axes.fill_between(curve.times, curve.bottom, curve.top, color=colour, alpha=opacity, lw=0)
        _scale(axes, panel)

    def _state_timeline(self, panel: Panel, lines: Sequence[Line], box: Box) -> None:
        """Draw a bar per series, coloured by value, with the text of the value where it fits."""
        left = 24 + max((_width(line.name, _SMALL) for line in lines), default=0)
        axes = self._axes(box.within(left=left, right=14, top=36, bottom=26))
        words: Mapping[str, Mapping[str, str]] = panel.defaults["mappings"][0]["options"]
        per_pixel_s = (self._span.end_s - self._span.start_s) / (box.width - left - 14)
        for number, line in enumerate(lines):
            for began_s, ended_s, value in _runs(line.samples, self._span):
                word = words[f"{value:g}"]
                axes.broken_barh([(began_s, ended_s - began_s)], (number - 0.35, 0.7), color=_NAMED[word["color"]])
                if (ended_s - began_s) / per_pixel_s > _width(word["text"], _SMALL) + 6:
                    middle = (began_s + ended_s) / 2
                    axes.text(middle, number, word["text"], color="white", size=_SMALL, ha="center", va="center")
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(visible=False)

    # ------------------------------------------------------------------------------------------- parts of a panel

    def _legend(self, entries: Sequence[tuple[str, str]], box: Box) -> float:
        """Draw the legend at the bottom of a panel, and return its height."""
        lines: list[list[tuple[str, str]]] = [[]]
        room = box.width - 24
        for name, colour in entries:
            if lines[-1] and _legend_width([*lines[-1], (name, colour)]) > room:
                lines.append([])
            lines[-1].append((name, colour))
        for number, line in enumerate(reversed(lines)):
            left, middle = box.left + 12, box.top + box.height - 12 - number * _LEGEND_LINE
            for name, colour in line:
                self._stroke(left, middle, colour)
                self._text(name, left + _SWATCH, middle, size=_SMALL, colour=_DIM)
                left += _legend_width([(name, colour)])
        return len(lines) * _LEGEND_LINE

    def _axes(self, box: Box, *, framed: bool = True) -> Axes:
        axes = self._figure.add_axes(self._placed(box))
        axes.set_xlim(self._span.start_s, self._span.end_s)
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if not framed:
            axes.set_axis_off()
            return axes
        axes.grid(color=_RULE, lw=1)
        axes.tick_params(length=0, labelsize=_SMALL, labelcolor=_DIM, pad=5)
        marks = _times(self._span)
        axes.set_xticks(marks, [_clock(mark) for mark in marks])
        return axes

    def _card(self, box: Box) -> None:
        corner = box.left, self._height - box.top - box.height
        style = "round,pad=0,rounding_size=3"
        shape = FancyBboxPatch(corner, box.width, box.height, boxstyle=style, fc=_CARD, ec=_EDGE, lw=1, zorder=-1)
        shape.set_transform(IdentityTransform())
        self._figure.add_artist(shape)

    def _stroke(self, left: float, middle: float, colour: str) -> None:
        x, y = [left / _WIDTH, (left + _SWATCH - 5) / _WIDTH], 1 - middle / self._height
        self._figure.add_artist(Line2D(x, [y, y], color=colour, lw=3, solid_capstyle="round"))

    def _text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        size: float = _TITLE,
        colour: str = _INK,
        align: str = "left",
        weight: str = "normal",
    ) -> None:
        at = (x / _WIDTH, 1 - y / self._height)
        self._figure.text(*at, text, size=size, color=colour, ha=align, va="center_baseline", weight=weight)

    def _placed(self, box: Box) -> tuple[float, float, float, float]:
        """Return the rectangle in fractions of the figure, from its left and bottom."""
        bottom = self._height - box.top - box.height
        return box.left / _WIDTH, bottom / self._height, box.width / _WIDTH, box.height / self._height


_FONTS = ("DejaVu Sans", "Verdana", "Helvetica", "Arial")
"""The first font is that of matplotlib, which measures the texts; the others are not wider."""


def _box(place: Place) -> Box:
    column = (_WIDTH - 2 * _MARGIN + _GAP) / 24
    left, top = _MARGIN + place.x * column, _HEADER + place.y * _ROW
    return Box(left, top, place.w * column - _GAP, place.h * _ROW - _GAP)


def _width(text: str, size: float, *, weight: str = "normal") -> float:
    font = FontProperties(family=_FONTS[0], weight=weight)
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width)


def _legend_width(entries: Sequence[tuple[str, str]]) -> float:
    return sum(_SWATCH + _width(name, _SMALL) + 14 for name, _ in entries)


def _colours(panel: Panel, lines: Sequence[Line]) -> dict[str, str]:
    palette = itertools.cycle(_SERIES)
    colours = {}
    for line in lines:
        wanted = panel.colour_of(line.name)
        colours[line.name] = _NAMED[wanted] if wanted else next(palette)
    return colours


@dataclass(frozen=True, slots=True)
class _Curve:
    times: Sequence[float]
    top: Sequence[float]
    bottom: Sequence[float]


def _stacked(lines: Sequence[Line], span: Span) -> list[_Curve]:
    """Draw each line stacked on the ones before; a missing sample counts as 0."""
    count = int((span.end_s - span.start_s) / span.step_s) + 1
    times = [span.start_s + number * span.step_s for number in range(count)]
    curves: list[_Curve] = []
    below = [0.0] * len(times)
    for line in lines:
        known = {round((at - span.start_s) / span.step_s): value for at, value in line.samples}
        top = [under + known.get(number, 0.0) for number, under in enumerate(below)]
        curves.append(_Curve(times, top, below))
        below = top
    return curves


def _apart(lines: Sequence[Line], span: Span) -> list[_Curve]:
    """Draw each line alone, with a gap where samples are missing, like Grafana."""
    curves = []
    for line in lines:
        times: list[float] = []
        top: list[float] = []
        for at, value in line.samples:
            if times and at - times[-1] > 1.5 * span.step_s:
                times.append(at)
                top.append(math.nan)
            times.append(at)
            top.append(value)
        curves.append(_Curve(times, top, [0.0] * len(times)))
    return curves


def _scale(axes: Axes, panel: Panel) -> None:
    """Set the bounds and ticks of the value axis."""
    drawn = [value for line in axes.lines for value in map(float, np.asarray(line.get_ydata())) if value == value]
    if panel.custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        positive = [value for value in drawn if value > 0] or [1.0]
        lowest = math.floor(math.log10(min(positive)))
        highest = max(math.ceil(math.log10(max(positive))), lowest + 1)
        marks = [10.0**power for power in range(lowest, highest + 1)]
        axes.set_ylim(marks[0], marks[-1] * 1.3)
    else:
        upper = float(panel.defaults.get("max", max(drawn) * 1.08 or 1.0))
        marks = _marks(upper, panel.unit)
        axes.set_ylim(0, upper)
    axes.set_yticks(marks, [values.written(mark, panel.unit) for mark in marks])
    axes.minorticks_off()


def _runs(samples: Samples, span: Span) -> list[tuple[float, float, float]]:
    """Yield the periods in which a series keeps its value: start, end, value."""
    runs: list[tuple[float, float, float]] = []
    for at, value in samples:
        end = min(at + span.step_s, span.end_s)
        if runs and runs[-1][2] == value and at - runs[-1][1] < span.step_s:
            runs[-1] = (runs[-1][0], end, value)
        else:
            runs.append((at, end, value))
    return runs


def _marks(upper: float, unit: str) -> list[float]:
    """Return at least three ticks from 0 to `upper`, multiples of a round number of the unit."""
    base = values.base(upper, unit)
    step = base * _round_number(upper / base / 2.2)
    if unit == "short":
        step = max(step, 1.0)  # these are whole numbers of things
    return [number * step for number in range(int(upper / step + 1e-9) + 1)]


def _round_number(most: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten up to `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in (5.0, 2.0, 1.0) if factor * power <= most * (1 + 1e-9))


def _times(span: Span) -> list[float]:
    """Return a few whole minutes inside the time range."""
    every_s = 60.0 * _round_number(max((span.end_s - span.start_s) / 60 / 4, 1.0))
    first = math.ceil((span.start_s + 0.04 * (span.end_s - span.start_s)) / every_s)
    last = math.floor((span.end_s - 0.04 * (span.end_s - span.start_s)) / every_s)
    return [number * every_s for number in range(first, last + 1)]


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M")


def _compact(svg: str) -> str:
    """Return an SVG of matplotlib without invisible parts.

    These are digits below a pixel, comments, and the font at each word.
    """
    svg = re.sub(r' transform="rotate\(-?0 [^"]*\)"|<!--.*?-->|font-family: [^;]*; ', "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg font-family="{", ".join(_FONTS)}, sans-serif" ', 1)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d+", _tenths, path[0]), svg)
    svg = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", svg)
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n"


def _tenths(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


Ask = Callable[[Panel], Sequence[Line]]


def draw(title: str, panels: Sequence[Panel], ask: Ask, span: Span, file: Path) -> None:
    """Write the dashboard as SVG, each panel with the lines from `ask`.

    Collapsed rows stay collapsed.
    """
    picture = Picture(title, span, max(panel.place.y + panel.place.h for panel in panels))
    for panel in panels:
        picture.draw(Shown(panel, ask(panel)))
    picture.save(file)
