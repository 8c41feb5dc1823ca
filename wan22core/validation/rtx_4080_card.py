"""The card that the checks of an RTX 4080 are about: the machine's own, else that of the packaged snapshot."""

from __future__ import annotations

from wan22core.errors import UnknownNameError
from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.records import GpuProfile, MachineProfile
from wan22core.validation.case import Case
from wan22core.validation.context import packaged
from wan22core.validation.planned import Card, card_of

NAME = "GeForce RTX 4080"
SNAPSHOT = "synthetic_rtx-4080"
SIZE_MIB = 16_384
REPORTED = (0.985, 1.0)
"""A card reports a little less than its nominal size: an RTX 4080 says 16,376 MiB."""


def subject(case: Case) -> tuple[MachineProfile, GpuProfile, GpuSpec]:
    """The machine that is validated where it has the card; else the snapshot, but never in the place of dumps."""
    context = case.context
    found = card_of(context.machine, NAME)
    if found is not None:
        case.look_at(context.machine_name)
        return context.machine, *found
    if context.replayed is not None:
        case.not_measured(
            f"no {NAME} in {context.replayed_from}", "Give the dumps of a machine with one, or leave out --from."
        )
    return packaged_subject(case)


def packaged_subject(case: Case) -> tuple[MachineProfile, GpuProfile, GpuSpec]:
    """The snapshot; its detection is a check itself, and without it there is nothing else to check."""
    machine, shown = packaged(SNAPSHOT)
    case.look_at(shown, packaged=True)
    return machine, *packaged_card(machine)


def packaged_card(machine: MachineProfile) -> Card:
    """The card of the snapshot. Raises ``UnknownNameError`` where the detection finds none."""
    found = card_of(machine, NAME)
    if found is None:
        raise UnknownNameError(
            f"The detection finds no {NAME} in the packaged snapshot {SNAPSHOT}.",
            next_action="Look at wan22 hardware --from that folder.",
        )
    return found
