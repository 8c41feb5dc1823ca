"""One benchmark through the session alone, without Prefect and Great Expectations: for a machine that has only torch.

Usage: python benchmarks/gpu.py [MODEL] [WORKLOAD] [REPEATS]   (ti2v-5b 2s-720p 1; tiny smoke runs on a CPU)
Prints a Markdown table with the four memory numbers of each stage, and whether they are in order.
"""

from __future__ import annotations

import sys
from itertools import pairwise

from wan22core.recipes import recipe
from wan22core.records import StageRecord
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.labels import labels_of
from wan22core.session.order import generations
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.specs import WORKLOADS, BenchmarkSpec, Weights

TOLERANCE_MIB = 64
PEAKS = ("peak_allocated_mib", "peak_reserved_mib", "peak_process_mib", "peak_device_mib", "peak_rss_mib")


def main(model: str = "ti2v-5b", workload: str = "2s-720p", repeats: str = "1") -> int:
    spec = BenchmarkSpec(
        workload=WORKLOADS[workload],
        weights=Weights(model=model),
        recipe=recipe("reference"),
        repeats=int(repeats),
        warmups=1,
    )
    settings = Settings()
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, spec, "python benchmarks/gpu.py", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        session.detect_hardware()
        session.prepare_weights()
        session.set_up_quantization()
        session.load_model()
        for kind, repeat in generations(spec):
            session.generate(kind, repeat)
        session.finish_measuring()
        labels, telemetry = labels_of(session), session.telemetry()
    print(f"{labels.device_name}, {model} {workload} {labels.recipe}, weights {labels.weights_source}\n")
    print("| stage | repeat | seconds | allocated | reserved | process | device | resident |")
    print("|---|---|---|---|---|---|---|---|")
    whole = [stage for stage in session.stages if stage.component is None]
    for stage in whole:
        cells = " | ".join(shown(getattr(stage, name)) for name in PEAKS)
        print(f"| {stage.stage.value} | {stage.kind.value} {stage.repeat} | {shown(stage.wall_s, 3)} | {cells} |")
    out_of_order = [stage.stage.value for stage in whole if not in_order(stage)]
    print(f"\nreadings out of order: {', '.join(out_of_order) or 'none'}; energy {shown(telemetry.energy_j)} J")
    if session.error is not None:
        print(f"{session.error.message} {session.error.next}", file=sys.stderr)
        return 4
    return 5 if out_of_order else 0


def in_order(stage: StageRecord) -> bool:
    """allocated <= reserved <= process <= device of the readings that are there, taken at one moment."""
    end = stage.memory_end
    present = [x for x in (end.allocated_mib, end.reserved_mib, end.process_mib, end.device_mib) if x is not None]
    return all(lower <= upper + TOLERANCE_MIB for lower, upper in pairwise(present))


def shown(value: float | None, digits: int = 0) -> str:
    return "not measured" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
