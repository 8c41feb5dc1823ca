"""One check while it runs: what it looks at, what it expects and what it finds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

from wan22core.records import Observation, Reading
from wan22core.session.locks import held_gpus
from wan22core.validation.context import Context
from wan22core.validation.expectations import Expectation
from wan22core.worker.client import ModelWorker


class NotMeasured(Exception):
    """The check can't be made here; not a failure, and never a pass."""

    def __init__(self, reason: str, next_action: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_action = next_action


class Case:
    """What a check is handed: the machine to look at, children to work in, and a place for what it finds."""

    def __init__(self, context: Context, deadline_s: float) -> None:
        self.context = context
        self.observations: list[Observation] = []
        self.looked_at: list[str] = []
        self.unknown: list[str] = []
        """What was to be judged and has no value, each with its reason."""
        self.on_snapshot = False
        """Whether a packaged snapshot stood in for hardware that this machine has not."""
        self.began = time.perf_counter()
        self._deadline_s = deadline_s
        self._is_packaged = False

    @property
    def misses(self) -> list[Observation]:
        """What was not as expected."""
        return [each for each in self.observations if each.held is False]

    @property
    def expected_anything(self) -> bool:
        """Whether there was anything to miss."""
        return bool(self.unknown) or any(each.held is not None for each in self.observations)

    def look_at(self, what: str, *, packaged: bool = False) -> None:
        """Names what the observations are about. Our own snapshots are complete: what is unknown was not read."""
        self._is_packaged = packaged
        self.on_snapshot |= packaged
        if what not in self.looked_at:
            self.looked_at.append(what)

    def expect(self, what: str, expectation: Expectation, observed: object) -> None:
        """Notes a value and whether it is as expected.

        A ``Reading`` without a value is not judged, and the check not measured for it; of a packaged snapshot it
        is a miss.
        """
        if isinstance(observed, Reading) and observed.value is None and not self._is_packaged:
            self.unknown.append(f"{what} is unknown: {observed.reason}")
            self._note(what, observed, expectation.text, held=None)
            return
        value = observed.value if isinstance(observed, Reading) else observed
        self._note(what, observed, expectation.text, held=expectation.holds(value))

    def fact(self, what: str, observed: object) -> None:
        """Notes a value that nothing is expected of."""
        self._note(what, observed, None, held=None)

    def not_measured(self, reason: str, next_action: str) -> NoReturn:
        """Ends the check here."""
        raise NotMeasured(reason, next_action)

    def require_no_benchmark(self) -> None:
        """Ends the check while a run holds a GPU: a load on this machine would spoil its figures, and it ours."""
        if held := held_gpus(self.context.settings.locks_path):
            self.not_measured(f"a benchmark runs on the GPU {', '.join(held)}", "Run it again when it has ended.")

    def job(
        self, dotted: str, arguments: dict[str, Any], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """``module:function`` in a child process that is killed at the check's deadline; its document."""
        with ModelWorker(self.context.log_path, environment=environment) as worker:
            worker.spawn()
            return worker.job(dotted, arguments, self._deadline_s)

    def _note(self, what: str, observed: object, expected: str | None, *, held: bool | None) -> None:
        found = Observation(what=what, expected=expected, observed=_shown(observed), held=held)
        self.observations.append(found)


def _shown(value: object) -> str:
    if isinstance(value, Reading):
        return f"unknown ({value.reason})" if value.value is None else _shown(value.value)
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return "none" if value is None else str(value)
