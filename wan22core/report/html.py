"""A run as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence

from wan22core.records import RunRecord, Sample
from wan22core.report import plots, view


def to_html(record: RunRecord, samples: Sequence[Sample]) -> str:
    """The page; jinja escapes every text, the charts escape their own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("wan22core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [
        plots.stage_bars(record),
        plots.memory_timeline(record, samples),
        plots.power_timeline(record, samples),
    ]
    return environment.get_template("report.html.j2").render(
        record=record,
        view=view,
        charts=[Markup(chart) for chart in charts],  # noqa: S704 - built from numbers and escaped names
    )
