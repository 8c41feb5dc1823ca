"""What a rule of advice is: conditions on measured figures, an action, and the changes whose effect is predicted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from wan22core.planning.configuration import Configuration, Mechanism
from wan22core.planning.run_metrics import METRICS, Metrics
from wan22core.records import Record
from wan22core.specs import Precision
from wan22core.targets import RecipeClass

_ANY = Configuration(
    name="any",
    recipe_class=RecipeClass.LOSSLESS,
    mechanism=Mechanism.RESIDENT,
    transformer=Precision.BF16,
    vae=Precision.BF16,
)


class Condition(Record):
    """How one figure must stand to a threshold. A figure that is missing meets no condition."""

    metric: str
    """One of ``run_metrics.METRICS``."""
    comparison: Literal["<", "<=", ">", ">="]
    threshold: float
    says: str = "{metric} is {value:.3g}, and the threshold is {threshold:.3g}."
    """The sentence for people when it holds; ``value``, ``threshold`` and ``metric`` are filled in."""

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"there is no figure {metric!r}; there are {', '.join(METRICS)}")
        return metric

    @field_validator("says")
    @classmethod
    def _can_be_filled_in(cls, says: str) -> str:
        try:
            says.format(metric="", value=0.0, threshold=0.0)
        except (KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"only metric, value and threshold can be filled in, not {error}") from error
        return says

    def holds(self, metrics: Metrics) -> bool:
        """Whether the figure is known and on the named side of the threshold."""
        value = metrics[self.metric].value
        if value is None:
            return False
        return {
            "<": value < self.threshold,
            "<=": value <= self.threshold,
            ">": value > self.threshold,
            ">=": value >= self.threshold,
        }[self.comparison]

    def sentence(self, metrics: Metrics) -> str:
        """The measured value beside the threshold; for a condition that holds."""
        return self.says.format(metric=self.metric, value=metrics[self.metric].value, threshold=self.threshold)


class Change(Record):
    """One way to follow a rule, as far as the planner can compute it."""

    what: str
    """In words, after "with"."""
    fields: dict[str, Any]
    """Fields of ``Configuration`` and their new values."""

    @field_validator("fields")
    @classmethod
    def _is_of_a_configuration(cls, fields: dict[str, Any]) -> dict[str, Any]:
        Configuration.model_validate({**_ANY.model_dump(), **fields})
        return fields

    def applied(self, configuration: Configuration) -> Configuration:
        """The configuration with the change."""
        return Configuration.model_validate({**configuration.model_dump(), **self.fields})


class Rule(Record):
    """Fires when all of ``requires`` and at least one of ``triggers`` hold."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    requires: tuple[Condition, ...] = ()
    """What must be so for the triggers to mean anything: the device, its abilities, that a stage counts."""
    triggers: tuple[Condition, ...] = Field(min_length=1)
    action: str
    """What to do, in a sentence."""
    changes: tuple[Change, ...] = ()
    """What following it may mean; the planner names the fastest that fits. None where it knows no such thing."""
    aim: Literal["time", "memory"] = "time"
    """``memory``: only changes that give the card room again count, whatever time they cost."""
    least_gain: float | None = None
    """The rule is silent unless the planner predicts that this share of the generation's time is saved."""
    measure: str
    """What to measure where the planner can't tell, in a sentence."""
    docs: str | None = None
    """Where it is explained; None is the heading of its id in ``docs/recommendations.md``."""

    def because(self, metrics: Metrics) -> str:
        """The triggers that hold, in sentences; empty when the rule does not fire."""
        if not all(condition.holds(metrics) for condition in self.requires):
            return ""
        return " ".join(condition.sentence(metrics) for condition in self.triggers if condition.holds(metrics))
