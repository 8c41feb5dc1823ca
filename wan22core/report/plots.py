"""Charts as inline SVG: they open offline, scale, print, and name themselves for a screen reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from wan22core.records import RunRecord, Sample, StageStatus
from wan22core.report import view

_WIDTH, _LEFT, _RIGHT = 760, 110, 16
_ROW, _HEIGHT, _TOP, _BOTTOM = 26, 220, 12, 28
_COLORS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
)  # Paul Tol's bright, safe for the colour-blind


@dataclass(frozen=True)
class Line:
    """One quantity over time; points are (seconds, value)."""

    name: str
    points: list[tuple[float, float]]


def stage_bars(record: RunRecord) -> str:
    """The median of each stage as a bar, minimum to maximum as a whisker."""
    stages = [stage for stage in view.stage_summaries(record) if stage.seconds.median is not None]
    if not stages:
        return "<p>No stage ended well, so there is nothing to draw.</p>"
    longest = max(stage.seconds.maximum or 0.0 for stage in stages) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT - 70) / longest
    parts = []
    for row, stage in enumerate(stages):
        median, low, high = stage.seconds.median or 0.0, stage.seconds.minimum or 0.0, stage.seconds.maximum or 0.0
        y, middle = row * _ROW + 4, row * _ROW + 13
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(stage.name)}</text>',
            f'<rect class="bar" x="{_LEFT}" y="{y}" width="{max(1.0, median * scale):.1f}" height="18" '
            f'fill="{_COLORS[row % len(_COLORS)]}"/>',
            f'<line x1="{_LEFT + low * scale:.1f}" x2="{_LEFT + high * scale:.1f}" y1="{middle}" y2="{middle}" '
            'stroke="currentColor"/>',
            f'<text x="{_LEFT + high * scale + 8:.1f}" y="{middle + 4}">{view.number(median, "s")}</text>',
        ]
    return _svg(
        len(stages) * _ROW + 4, "Seconds by stage", "Median of the measured repeats; whisker: min to max.", parts
    )


def memory_timeline(record: RunRecord, samples: Sequence[Sample]) -> str:
    """Resident, process and device memory over the run, the stages as bands."""
    lines = [
        _line("resident (RSS)", [(s.t_s, s.rss_mib) for s in samples]),
        _line("GPU process", [(s.t_s, s.gpu_process_mib) for s in samples]),
        _line("GPU device", [(s.t_s, s.gpu_device_mib) for s in samples]),
    ]
    return _timeline("Memory over time", "MiB", record, lines)


def power_timeline(record: RunRecord, samples: Sequence[Sample]) -> str:
    """Power and temperature of the GPU, and the worker's processor use."""
    lines = [
        _line("GPU power (W)", [(s.t_s, s.gpu_power_w) for s in samples]),
        _line("GPU temperature (C)", [(s.t_s, s.gpu_temperature_c) for s in samples]),
        _line("CPU (% of a core)", [(s.t_s, s.cpu_percent) for s in samples]),
    ]
    return _timeline("Power, temperature and processor over time", "", record, lines)


def _line(name: str, points: Sequence[tuple[float, float | None]]) -> Line:
    return Line(name, [(t, value) for t, value in points if value is not None])


def _timeline(title: str, unit: str, record: RunRecord, lines: Sequence[Line]) -> str:
    drawn = [line for line in lines if len(line.points) >= 2]
    if not drawn:
        reasons = "; ".join(sorted(set(record.telemetry.reasons.values()))) or "no samples were taken"
        return f"<p>{escape(title)}: not measured ({escape(reasons)}).</p>"
    end = max(line.points[-1][0] for line in drawn)
    start = min(line.points[0][0] for line in drawn)
    top = max(value for line in drawn for _, value in line.points) or 1.0
    across = (_WIDTH - _LEFT - _RIGHT) / ((end - start) or 1.0)
    down = (_HEIGHT - _TOP - _BOTTOM) / top

    def x(t: float) -> float:
        return _LEFT + (t - start) * across

    parts = [*_bands(record, x), *_axes(start, end, top, unit)]
    for number, line in enumerate(drawn):
        color = _COLORS[number]
        path = " ".join(f"{x(t):.1f},{_HEIGHT - _BOTTOM - value * down:.1f}" for t, value in line.points)
        parts.append(f'<polyline class="curve" fill="none" stroke="{color}" stroke-width="1.6" points="{path}"/>')
        parts.append(f'<text x="{_LEFT + 8 + number * 170}" y="{_TOP + 10}" fill="{color}">{escape(line.name)}</text>')
    return _svg(_HEIGHT, title, f"From {start:.1f} to {end:.1f} s; shaded: every other stage.", parts)


def _bands(record: RunRecord, x: object) -> list[str]:
    assert callable(x)
    spans = [
        (stage.started_s, stage.ended_s, stage.stage.value)
        for stage in record.stages
        if stage.component is None and stage.status is StageStatus.OK
    ]
    return [
        f'<rect class="band" x="{x(a):.1f}" y="{_TOP}" width="{max(0.5, x(b) - x(a)):.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{escape(name)}</title></rect>'
        for number, (a, b, name) in enumerate(spans)
        if a is not None and b is not None and number % 2
    ]


def _axes(start: float, end: float, top: float, unit: str) -> list[str]:
    base = _HEIGHT - _BOTTOM
    return [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}" stroke="currentColor"/>',
        f'<text x="{_LEFT - 8}" y="{_TOP + 8}" text-anchor="end">{view.number(top, unit)}</text>',
        f'<text x="{_LEFT - 8}" y="{base}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{start:.1f} s</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{end:.1f} s</text>',
    ]


def _svg(height: int, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
