"""What other programs print about a machine, one file a family of forms; ``read_dump`` tries all of them on a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wan22core.hardware.formats import (
    amd,
    apple,
    cpu_files,
    linux_tools,
    lscpu,
    nvidia_csv,
    nvidia_query,
    nvidia_table,
    nvidia_xml,
    pytorch,
)
from wan22core.hardware.formats.facts import Facts

Reader = Callable[[str, str], Facts | None]
"""(file name, text) -> what it says, None when the text is not of this form."""

READERS: Sequence[Reader] = (
    nvidia_xml.read,
    nvidia_csv.read,
    nvidia_query.read,
    nvidia_table.read,
    nvidia_table.read_list,
    nvidia_table.read_topology,
    lscpu.read_json,
    lscpu.read,
    cpu_files.read_cpuinfo,
    cpu_files.read_meminfo,
    cpu_files.read_small,
    linux_tools.read_numactl,
    linux_tools.read_free,
    linux_tools.read_shell_errors,
    pytorch.read_device_query,
    pytorch.read_collect_env,
    amd.read_rocm_smi,
    amd.read_rocminfo,
    apple.read,
    linux_tools.read_xmrig,
)
"""In the order of trust: structured forms first. Of two that speak of the same field the earlier one counts."""


def read_dump(name: str, text: str) -> list[tuple[int, Facts]]:
    """All that ``text`` says, with the rank of each form in ``READERS``; one file may hold several."""
    found = ((rank, reader(name, text)) for rank, reader in enumerate(READERS))
    return [(rank, facts) for rank, facts in found if facts is not None]
