"""What measuring costs: generation in the flow against a bare script, alternating; the flow itself; a sample.

Usage: python benchmarks/overhead.py [RUNS] [PAIRS]   (20 2: some 16 minutes on two cores)

A run is one worker inside a flow and one bare process; from process to process the same work differs by some per
cent, so there are many runs. A pair is two generations of each, one side after the other, the first side alternating:
a machine that slows down for half a minute slows both sides of a pair. Between the sides nothing happens for a moment,
so that what Prefect still does about one side is not paid by the other.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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
from wan22core.records import RepeatKind, StageRecord
from wan22core.report.document import load_run
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.telemetry.sampler import Sampler

IN_A_ROW = 2
SETTLE_S = 1.5
FLOWS = 5
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pair:
    """Seconds of a generation: the stages' sum in the flow, the same with what stands between them, and bare."""

    inside_s: float
    span_s: float
    bare_s: float


class Bare:
    """The bare process: loaded once, one generation each time it is asked."""

    def __init__(self, spec: Path, checkpoint: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(spec), checkpoint]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()

    def generate(self) -> float:
        assert self._child.stdin is not None and self._child.stdout is not None
        print(file=self._child.stdin, flush=True)
        return float(self._child.stdout.readline())


@flow(name="overhead")
def alternate(request: BenchmarkRequest, pairs: int) -> list[Pair]:
    """The tasks of the benchmark flow, with the bare process's turns between the generations."""
    spec, settings = request.to_spec(), Settings()
    folder = new_run_folder(settings.runs_path, new_run_id())
    recording = Recording.new(folder, spec, "python benchmarks/overhead.py", interval_s=settings.sample_interval_s)
    with BenchmarkSession(recording, settings) as session:
        session.spawn_worker()
        detect_hardware(session)
        weights = prepare_weights(session)
        assert weights is not None
        set_up_quantization(session)
        load_model(session)
        spec_file = folder.path / "spec.json"
        spec_file.write_text(spec.model_dump_json())
        with Bare(spec_file, weights.folder) as bare:
            generate_video(session, RepeatKind.WARMUP, 0)
            bare.generate()
            return [_pair(session, bare, number) for number in range(pairs)]


def _pair(session: BenchmarkSession, bare: Bare, number: int) -> Pair:
    inside: list[list[StageRecord]] = []
    outside: list[float] = []
    for side in ("flow", "bare") if number % 2 else ("bare", "flow"):
        time.sleep(SETTLE_S)
        for repeat in range(number * IN_A_ROW, (number + 1) * IN_A_ROW):
            if side == "flow":
                inside.append(generate_video(session, RepeatKind.MEASURED, repeat))
            else:
                outside.append(bare.generate())
    pair = Pair(
        inside_s=statistics.mean(sum(stage.wall_s or 0 for stage in stages) for stages in inside),
        span_s=statistics.mean((stages[-1].ended_s or 0) - (stages[0].started_s or 0) for stages in inside),
        bare_s=statistics.mean(outside),
    )
    print(f"pair {number + 1}: {pair}", file=sys.stderr)
    return pair


def main() -> None:
    runs, pairs = (int(given) for given in (sys.argv[1:] + ["20", "2"][len(sys.argv) - 1 :]))
    settings, request = Settings(), BenchmarkRequest(repeats=1, warmups=0)
    quiet_logs()
    with prefect_api(settings):
        measured = [alternate(request, pairs) for _ in range(runs)]
        beside = [flow_beside_stages_s(request, settings) for _ in range(FLOWS)]
    show(measured)
    print(f"a flow beside its stages, standing server: median {statistics.median(beside):.2f} s of {FLOWS}")
    print(f"the sampler at 10 Hz: {100 * sample_cost_s() * 10:.2f} % of a core")


def flow_beside_stages_s(request: BenchmarkRequest, settings: Settings) -> float:
    run_id = new_run_id()
    began = time.perf_counter()
    benchmark(request, run_id, return_state=True)
    whole_s = time.perf_counter() - began
    record = load_run(settings.runs_path / run_id)
    return whole_s - sum(stage.wall_s or 0 for stage in record.stages if stage.component is None)


def show(runs: list[list[Pair]]) -> None:
    pairs = [pair for run in runs for pair in run]
    print(f"{len(runs)} runs, {len(pairs)} pairs of {IN_A_ROW} generations")
    print(f"generation, bare script: median {statistics.median(pair.bare_s for pair in pairs):.3f} s")
    print(f"generation inside the flow: median {statistics.median(pair.inside_s for pair in pairs):.3f} s")
    print(f"ratio: {interval(runs, lambda pair: pair.inside_s / pair.bare_s)}")
    print(f"milliseconds added: {interval(runs, lambda pair: 1000 * (pair.inside_s - pair.bare_s))}")
    between = interval(runs, lambda pair: pair.span_s / pair.bare_s)
    print(f"ratio with what stands between the stages: {between}")


def interval(runs: list[list[Pair]], value: Callable[[Pair], float]) -> str:
    """The mean of the runs' medians, its 95 % interval by bootstrap over the runs: a process is fast or slow whole."""
    medians = [statistics.median(value(pair) for pair in run) for run in runs]
    generator = random.Random(0)
    resampled = sorted(statistics.mean(generator.choices(medians, k=len(medians))) for _ in range(RESAMPLES))
    low, high = resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES)]
    spread = statistics.stdev(medians)
    return f"mean {statistics.mean(medians):.4g}, 95 % interval [{low:.4g}, {high:.4g}], runs scatter by {spread:.2g}"


def sample_cost_s(samples: int = 2000) -> float:
    """Processor seconds of one sample of a live child."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    sampler = Sampler(interval_s=0.1, origin_s=time.monotonic())
    sampler.watch(child.pid)
    before = time.thread_time()
    for _ in range(samples):
        sampler.sample_now()
    cost = (time.thread_time() - before) / samples
    child.communicate(b"\n")
    return cost


if __name__ == "__main__":
    print(f"{os.cpu_count()} CPUs", file=sys.stderr)
    main()
