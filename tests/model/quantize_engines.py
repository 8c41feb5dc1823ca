"""The real engine, hanging in the middle of a real quantization."""

from __future__ import annotations

import time

from tests.worker.engines import hang
from wan22core.model.engine import Report, WanEngine
from wan22core.records import Progress
from wan22core.specs import Precision


class HangsWhileQuantizing(WanEngine):
    """After a tenth of the weights, in a C call that keeps the interpreter's lock; working precisions pass."""

    def quantize(self, precision: Precision, report: Report) -> None:
        def report_and_hang(progress: Progress) -> None:
            hangs = progress.bytes_done is not None and (progress.fraction or 0.0) >= 0.1
            if hangs:
                time.sleep(0.2)  # the channel passes on ten reports a second: this one is to be heard
            report(progress)
            if hangs:
                hang()

        super().quantize(precision, report_and_hang)
