"""What a run's rows carry, and the environment they were measured in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from wan22core import page_cache
from wan22core.records import (
    AlertLevel,
    Census,
    Labels,
    Stage,
    StageRecord,
    WeightsRecord,
)
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.specs import BenchmarkSpec
from wan22core.telemetry.thresholds import Quantity

_OWN = "own"
_UNKNOWN = "unknown"


def labels_of(session: BenchmarkSession) -> Labels:
    """What every row of a run carries; the actual precision comes from the census, never from the request."""
    spec, hardware, device = session.spec, session.hardware, session.device
    assert hardware is not None, "detect_hardware comes first"
    gpu = hardware.gpu_of(device)
    return Labels(
        host=hardware.software.host,
        operating_system=hardware.software.operating_system,
        device=device,
        device_name=hardware.cpu.model.value if device == "cpu" else gpu.name.value if gpu else None,
        device_uuid=gpu.uuid.value if gpu else None,
        **_weights_labels(spec, session.weights),
        workload=spec.workload.name,
        recipe=spec.recipe.name,
        recipe_class=spec.recipe.recipe_class.value,
        vram_limit_mib=spec.vram_limit_mib,
        precision_requested=spec.recipe.transformer_precision.value,
        precision_actual=actual_precision(session.worker.census),
        placement=session.placement.value,
        attention_backend=session.worker.attention_backend,
        page_cache=_page_cache(session.stages),
        compile_cache=_compile_cache(session.stages),
        attempts=session.attempts,
        resumed=session.recording.resumed,
        fallback=session.fell_back,
        emulated=spec.vram_limit_mib is not None,
        foreign_process=session.foreign_process,
        embeddings_cached=any(stage.from_cache for stage in session.stages),
        thermally_throttled=_thermally_throttled(session.recording),
    )


def _page_cache(stages: Sequence[StageRecord]) -> page_cache.State:
    """Before the run's first load; what it holds later is what that one left there."""
    loads = (each for each in stages if each.stage is Stage.LOAD and each.component is None)
    first = next(loads, None)
    return page_cache.state_of(first.cached_fraction if first is not None else None)


def _compile_cache(stages: Sequence[StageRecord]) -> Literal["none", "cold", "warm"]:
    """Of the first stage that had something to compile."""
    return next((each.compile_cache for each in stages if each.compile_cache is not None), "none")


def _thermally_throttled(recording: Recording) -> bool | None:
    heat = {Quantity.GPU_TEMPERATURE, Quantity.GPU_TEMPERATURE_MARGIN, Quantity.GPU_THERMAL_THROTTLING}
    critical = [alert.quantity for alert in recording.alerts if alert.level is AlertLevel.CRITICAL]
    if heat & set(critical):
        return True
    return None if heat <= set(recording.unwatched) else False


def _weights_labels(spec: BenchmarkSpec, weights: WeightsRecord | None) -> dict[str, Any]:
    """A user's own functions are known by their names; a run that broke before its weights were seen does not know."""
    if weights is not None:
        return {
            "architecture": weights.architecture,
            "weights_source": weights.source,
            "weights_id": weights.weights_id,
        }
    if spec.opaque is not None:
        identity = f"{spec.opaque.loader} {spec.opaque.generator}"
        return {"architecture": _OWN, "weights_source": _OWN, "weights_id": identity}
    return {"architecture": _UNKNOWN, "weights_source": _UNKNOWN, "weights_id": spec.weights.model}


def actual_precision(census: Sequence[Census]) -> str | None:
    """The dtype that holds most bytes of the transformer (of the first component where there is none)."""
    chosen = next((part for part in census if part.component == "transformer"), census[0] if census else None)
    if chosen is None or not chosen.bytes_by_dtype:
        return None
    return max(chosen.bytes_by_dtype, key=lambda name: chosen.bytes_by_dtype[name])


def environment(session: BenchmarkSession) -> dict[str, str | None]:
    """What may change under a series: driver, CUDA, packages, commit, torch's threads, host settings that hold.

    ``tf32`` is what torch says of it, asked for or not; ``compiled`` is None where nothing was to be.
    """
    hardware, worker = session.hardware, session.worker
    assert hardware is not None, "detect_hardware comes first"
    compiled = [each.compile_cache != "none" for each in session.stages if each.compile_cache is not None]
    gpu = hardware.gpu_of(session.device)
    found: dict[str, str | None] = {
        "driver": gpu.driver.value if gpu else None,
        "cuda": gpu.cuda.value if gpu else None,
        "python": hardware.software.python,
        "kernel": hardware.software.kernel,
        "commit": hardware.software.commit.value,
        "threads": None if worker.threads is None else str(worker.threads),
        "tf32": worker.tf32,
        "compiled": None if not compiled else "yes" if all(compiled) else "no",
    }
    held = [each for each in worker.settings_applied if each.held]
    found |= {each.name: each.read_back for each in held if each.name not in ("threads", "tf32")}
    found |= {name: reading.value for name, reading in sorted(hardware.software.packages.items())}
    return found
