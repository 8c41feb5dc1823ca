"""What measuring costs: generation in the flow against a bare script, alternating; the flow itself; a sample.

Usage: python benchmarks/overhead.py [PAIRS]   (15 pairs of tiny smoke take some 10 minutes on two cores)
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flows.local_server import prefect_api
from flows.request import BenchmarkRequest
from wan22core.records import RepeatKind, RunRecord
from wan22core.report.document import load_run
from wan22core.session.folder import new_run_id
from wan22core.session.weights import prepare_weights
from wan22core.settings import Settings
from wan22core.telemetry.sampler import Sampler

REPEATS = 3
RESAMPLES = 10_000


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    settings = Settings()
    request = BenchmarkRequest(repeats=REPEATS, warmups=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = prepare_weights(request.to_spec().weights, settings, Path(folder) / "worker.log")
        spec = Path(folder) / "spec.json"
        spec.write_text(request.to_spec().model_dump_json())
        inside, bare, beside = [], [], []
        with prefect_api(settings):
            for number in range(pairs):
                for side in ("flow", "bare") if number % 2 else ("bare", "flow"):
                    if side == "flow":
                        record, flow_s = run_flow(request, settings)
                        inside.append(generation_s(record))
                        beside.append(flow_s - sum(s.wall_s or 0 for s in record.stages if s.component is None))
                    else:
                        bare.append(run_bare(spec, weights.folder))
                print(f"pair {number + 1}: flow {inside[-1]:.3f} s, bare {bare[-1]:.3f} s", file=sys.stderr)
    show(inside, bare, beside)


def run_flow(request: BenchmarkRequest, settings: Settings) -> tuple[RunRecord, float]:
    from flows.benchmark import benchmark
    from flows.cli.output import quiet_logs

    quiet_logs()
    run_id = new_run_id()
    began = time.perf_counter()
    benchmark(request, run_id, return_state=True)
    return load_run(settings.runs_path / run_id), time.perf_counter() - began


def generation_s(record: RunRecord) -> float:
    return statistics.median(row.generation_s or 0 for row in record.repeats if row.kind is RepeatKind.MEASURED)


def run_bare(spec: Path, checkpoint: str) -> float:
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(spec), checkpoint, str(REPEATS + 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout)[1:])


def show(inside: list[float], bare: list[float], beside: list[float]) -> None:
    ratios = [a / b for a, b in zip(inside, bare, strict=True)]
    generator = random.Random(0)
    resampled = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES)]
    added_ms = 1000 * statistics.median(a - b for a, b in zip(inside, bare, strict=True))
    print(
        f"pairs {len(ratios)}, generation bare {statistics.median(bare):.3f} s, "
        f"in the flow {statistics.median(inside):.3f} s"
    )
    print(
        f"ratio: median {statistics.median(ratios):.4f}, 95 % interval [{low:.4f}, {high:.4f}] "
        "(bootstrap of the median)"
    )
    print(f"added by the flow: median {added_ms:.0f} ms a generation")
    print(
        f"a flow beside its stages, standing server: median {statistics.median(beside):.2f} s, first {beside[0]:.2f} s"
    )
    print(f"the sampler at 10 Hz: {100 * sample_cost_s() * 10:.2f} % of a core")


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
