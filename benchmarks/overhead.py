"""What measuring costs: generation in the flow against the bare stages, alternating; the flow itself; a sample.

Usage: python benchmarks/overhead.py [PAIRS]   (150: some 25 minutes on two cores)

Both sides of a pair are one process with one model in it: from process to process the same work differs by more than
what is to be found. In the flow the worker is asked for one stage after the other, beside it one job calls them all
(``both_ways.py``). The first side alternates. Between the sides nothing happens for a moment, so that what Prefect
still does about one side is not paid by the other. The paced sampler goes on beside both; what it takes is told apart.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from prefect import flow

from flows.benchmark import benchmark
from flows.cli.output import quiet_logs
from flows.local_server import prefect_api
from flows.request import BenchmarkRequest
from tasks.generate import generate_video
from tasks.hardware import detect_hardware
from tasks.load import load_model
from tasks.quantization import set_up_quantization
from tasks.weights import prepare_weights
from wan22core.records import RepeatKind
from wan22core.report.document import load_run
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings

PAIRS = 150
SETTLE_S = 0.75
BARE_DEADLINE_S = 120.0
FLOWS = 5
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pair:
    """Seconds of a generation: the stages' sum in the flow, the same with what stands between them, and bare."""

    inside_s: float
    span_s: float
    bare_s: float
    own_cpu_s: float
    """Processor time of this process, the flow's, while the worker generated."""


@flow(name="overhead")
def alternate(request: BenchmarkRequest, pairs: int) -> tuple[list[Pair], float]:
    """The tasks of the benchmark flow, with the bare turns between the generations; the sampler's share of a core."""
    settings = Settings()
    spec = request.to_spec().model_copy(update={"engine": "both_ways:BothWays"})
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, spec, "python benchmarks/overhead.py", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        session.spawn_worker()
        detect_hardware(session)
        prepare_weights(session)
        set_up_quantization(session)
        load_model(session)
        generate_video(session, RepeatKind.WARMUP, 0)
        _bare_s(session)
        began, sampling_s = time.perf_counter(), _sampler_cpu_s()
        found = [_pair(session, number) for number in range(pairs)]
        return found, (_sampler_cpu_s() - sampling_s) / (time.perf_counter() - began)


def _pair(session: BenchmarkSession, number: int) -> Pair:
    bare_s = _bare_s(session) if number % 2 else None
    before_s = time.process_time()
    stages = generate_video(session, RepeatKind.MEASURED, number)
    own_cpu_s = time.process_time() - before_s
    return Pair(
        inside_s=sum(stage.wall_s or 0 for stage in stages),
        span_s=(stages[-1].ended_s or 0) - (stages[0].started_s or 0),
        bare_s=_bare_s(session) if bare_s is None else bare_s,
        own_cpu_s=own_cpu_s,
    )


def _bare_s(session: BenchmarkSession) -> float:
    time.sleep(SETTLE_S)
    child = session.worker._child  # a session has no jobs of its own: nothing else may run beside its stages
    return float(child.job("both_ways:generate_job", {}, BARE_DEADLINE_S)["seconds"])


def _sampler_cpu_s() -> float:
    """Processor seconds of the thread that samples and writes the trace, since it began."""
    native_id = next(each.native_id for each in threading.enumerate() if each.name == "sampler")
    used = next(each for each in psutil.Process().threads() if each.id == native_id)
    return float(used.user_time + used.system_time)


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    settings, request = Settings(), BenchmarkRequest(repeats=1, warmups=0)
    quiet_logs()
    with prefect_api(settings):
        measured, sampler_share = alternate(request, pairs)
        beside = [flow_beside_stages_s(request, settings) for _ in range(FLOWS)]
    show(measured)
    print(f"the sampler at 10 Hz, beside both sides: {100 * sampler_share:.2f} % of a core")
    print(f"a flow beside its stages, standing server: median {statistics.median(beside):.2f} s of {FLOWS}")


def flow_beside_stages_s(request: BenchmarkRequest, settings: Settings) -> float:
    run_id = new_run_id()
    began = time.perf_counter()
    benchmark(request, run_id, return_state=True)
    whole_s = time.perf_counter() - began
    record = load_run(settings.runs_path / run_id)
    return whole_s - sum(stage.wall_s or 0 for stage in record.stages if stage.component is None)


def show(pairs: Sequence[Pair]) -> None:
    print(f"{len(pairs)} pairs of generations")
    print(f"generation, bare: median {statistics.median(pair.bare_s for pair in pairs):.3f} s")
    print(f"generation inside the flow: median {statistics.median(pair.inside_s for pair in pairs):.3f} s")
    print(f"ratio: {interval(pairs, lambda pair: pair.inside_s / pair.bare_s)}")
    print(f"milliseconds added: {interval(pairs, lambda pair: 1000 * (pair.inside_s - pair.bare_s))}")
    between = interval(pairs, lambda pair: pair.span_s / pair.bare_s)
    print(f"ratio with what stands between the stages: {between}")
    own = statistics.median(pair.own_cpu_s / pair.span_s for pair in pairs)
    print(f"the flow's process, while its worker generates: {100 * own:.2f} % of a core")


def interval(pairs: Sequence[Pair], value: Callable[[Pair], float]) -> str:
    """The median of the pairs and its 95 % interval by bootstrap."""
    values = [value(pair) for pair in pairs]
    generator = random.Random(0)
    drawn = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]
    spread = statistics.stdev(values)
    return (
        f"median {statistics.median(values):.4g}, 95 % interval [{low:.4g}, {high:.4g}], pairs scatter by {spread:.2g}"
    )


if __name__ == "__main__":
    print(f"{os.cpu_count()} CPUs", file=sys.stderr)
    main()
