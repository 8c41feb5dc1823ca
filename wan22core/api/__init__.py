"""The original's programming interface: any loader and generator, measured and judged.

from wan22core.api import HardwareProfile, WAN22PerformanceBenchmarks

results = WAN22PerformanceBenchmarks().run_comprehensive_ti2v_benchmark(loader, generator, hardware_profile)
"""

from wan22core.api.benchmarks import WAN22PerformanceBenchmarks
from wan22core.api.declared import HardwareProfile, TI2VBenchmarkTargets
from wan22core.api.results import BenchmarkResult, VramComparison

__all__ = [
    "BenchmarkResult",
    "HardwareProfile",
    "TI2VBenchmarkTargets",
    "VramComparison",
    "WAN22PerformanceBenchmarks",
]
