"""Every failure that wan22 names: what happened, where, and what to do next.

Wan22Error
├── UserInputError (also ValueError)      what a user typed or configured
│   ├── UnknownNameError                  no recipe, workload, model, run or baseline of that name
│   └── RunsFolderError                   the runs folder can't be written
├── DeviceError
│   ├── DeviceBusyError                   another run holds the device
│   ├── DeviceTooHotError                 a run was stopped to let the GPU cool
│   └── IncompatibleHardwareError         the device can't do what was asked
├── WeightsError
│   ├── ModelNotFoundError
│   ├── CheckpointLayoutError             something else than a diffusers checkpoint was given
│   ├── CorruptWeightsError
│   ├── TrustRemoteCodeError
│   └── DownloadError                     transient
├── InsufficientDiskSpaceError
├── MissingDependencyError
├── WorkerError                           the process that owns torch
│   ├── StageTimeoutError                 killed at its deadline
│   ├── StageFailedError                  an exception inside a stage
│   ├── CudaOutOfMemoryError
│   ├── KernelOutOfMemoryError            with evidence from the cgroup's counters
│   ├── SegmentationFaultError
│   └── WorkerKilledError                 killed or ended, cause not seen
├── UnsupportedQuantizationError
├── OutputError                           a result that must not become a time
│   ├── MissingOutputError
│   ├── NonFiniteOutputError
│   ├── ConstantOutputError
│   └── WrongFrameCountError
├── StorageError
│   ├── HistoryUnavailableError           transient
│   └── HistorySchemaError
├── OrchestratorError                     Prefect's server
│   └── PortInUseError
└── QualityGateFailed                     carries where the saved result is
"""

from __future__ import annotations

from typing import Any, ClassVar


class Wan22Error(Exception):
    """A failure with a sentence of what and where, and a sentence of what to do next.

    ``details`` holds plain JSON values. Survives pickling, because Prefect pickles what a task raises.
    """

    code: ClassVar[str] = "WAN22_ERROR"
    exit_code: ClassVar[int] = 4
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, next_action: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_action = next_action
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.next_action, self.details)

    def as_dict(self) -> dict[str, Any]:
        """The ``error`` object of the ``--json`` contract, without the log's path."""
        return {"code": self.code, "message": self.message, "next": self.next_action, "details": self.details}


def _rebuild(cls: type[Wan22Error], message: str, next_action: str, details: dict[str, Any]) -> Wan22Error:
    return cls(message, next_action=next_action, details=details)


class UserInputError(Wan22Error, ValueError):
    code = "INVALID_INPUT"
    exit_code = 2


class UnknownNameError(UserInputError):
    code = "UNKNOWN_NAME"


class RunsFolderError(UserInputError):
    code = "RUNS_FOLDER"


class DeviceError(Wan22Error):
    code = "DEVICE"


class DeviceBusyError(DeviceError):
    code = "DEVICE_BUSY"


class DeviceTooHotError(DeviceError):
    code = "DEVICE_TOO_HOT"


class IncompatibleHardwareError(DeviceError):
    code = "INCOMPATIBLE_HARDWARE"


class WeightsError(Wan22Error):
    code = "WEIGHTS"


class ModelNotFoundError(WeightsError):
    code = "MODEL_NOT_FOUND"
    exit_code = 2


class CheckpointLayoutError(WeightsError):
    code = "CHECKPOINT_LAYOUT"
    exit_code = 2


class CorruptWeightsError(WeightsError):
    code = "CORRUPT_WEIGHTS"


class TrustRemoteCodeError(WeightsError):
    code = "TRUST_REMOTE_CODE"


class DownloadError(WeightsError):
    code = "NETWORK"
    transient = True


class InsufficientDiskSpaceError(Wan22Error):
    code = "INSUFFICIENT_DISK_SPACE"


class MissingDependencyError(Wan22Error):
    code = "MISSING_DEPENDENCY"


class WorkerError(Wan22Error):
    code = "WORKER"


class StageTimeoutError(WorkerError):
    code = "TIMEOUT"


class StageFailedError(WorkerError):
    code = "STAGE_FAILED"


class CudaOutOfMemoryError(WorkerError):
    code = "CUDA_OUT_OF_MEMORY"


class KernelOutOfMemoryError(WorkerError):
    code = "KERNEL_OUT_OF_MEMORY"


class SegmentationFaultError(WorkerError):
    code = "SEGMENTATION_FAULT"


class WorkerKilledError(WorkerError):
    code = "WORKER_KILLED"


class UnsupportedQuantizationError(Wan22Error):
    code = "UNSUPPORTED_QUANTIZATION"


class OutputError(Wan22Error):
    code = "OUTPUT"


class MissingOutputError(OutputError):
    code = "OUTPUT_MISSING"


class NonFiniteOutputError(OutputError):
    code = "OUTPUT_NOT_FINITE"


class ConstantOutputError(OutputError):
    code = "OUTPUT_CONSTANT"


class WrongFrameCountError(OutputError):
    code = "OUTPUT_WRONG_FRAMES"


class StorageError(Wan22Error):
    code = "STORAGE"


class HistoryUnavailableError(StorageError):
    code = "HISTORY_UNAVAILABLE"
    transient = True


class HistoryConflictError(StorageError):
    """The history holds another run of that id."""

    code = "HISTORY_CONFLICT"


class HistorySchemaError(StorageError):
    code = "HISTORY_SCHEMA"


class OrchestratorError(Wan22Error):
    code = "ORCHESTRATOR"


class PortInUseError(OrchestratorError):
    code = "PORT_IN_USE"


class QualityGateFailed(Wan22Error):
    code = "QUALITY_GATE"
    exit_code = 1


def error_classes() -> dict[str, type[Wan22Error]]:
    """Every class of the tree by its ``code``; the worker's messages name errors this way."""
    found: dict[str, type[Wan22Error]] = {}
    queue: list[type[Wan22Error]] = [Wan22Error]
    while queue:
        cls = queue.pop()
        found[cls.code] = cls
        queue.extend(cls.__subclasses__())
    return found
