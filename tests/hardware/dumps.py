"""Synthetic dumps in the forms of the real tools: the figures are made up, the layout is theirs."""

from __future__ import annotations

_WIDE = "+" + "-" * 89 + "+"
_ROW = "+" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "+"


def _table(rows: list[tuple[int, str, str, str]]) -> str:
    """(index, name, power cell, memory cell)."""
    lines = [
        _WIDE,
        "| NVIDIA-SMI 555.42.02              Driver Version: 555.42.02      CUDA Version: 12.5     |",
        _ROW.replace("+", "|", 1),
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|" + "=" * 41 + "+" + "=" * 24 + "+" + "=" * 22 + "|",
    ]
    for index, name, power, memory in rows:
        lines += [
            f"|{index:4}  {name:<31} Off |   00000000:0{index}:00.0 Off |                  N/A |",
            f"|{power:>40} |{memory:>23} |      0%      Default |",
            "|                                         |                        |                  N/A |",
            _ROW,
        ]
    lines += [
        "",
        _WIDE,
        "| Processes:" + " " * 78 + "|",
        "|    0   N/A  N/A      1234      C   python      9999MiB |",
        _WIDE,
    ]
    return "\n".join(lines) + "\n"


_IDLE = "30%   41C    P8             26W /  320W"
TABLE = _table([(0, "NVIDIA GeForce RTX 4080", _IDLE, "1000MiB / 16376MiB")])
LOST = "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error\n" + _table(
    [
        (0, "NVIDIA RTX PRO 6000 Blac...", _IDLE, "10MiB / 97887MiB"),
        (2, "NVIDIA RTX PRO 6000 Blac...", _IDLE, "9MiB / 97887MiB"),
    ]
)

OLD_TABLE = """\
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 555.42.02    Driver Version: 555.42.02    CUDA Version: 12.5     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |
|===============================+======================+======================|
|   0  GeForce RTX 4080    Off  | 00000000:21:00.0 Off |                  N/A |
|  0%   41C    P8    16W / 320W |      5MiB / 16376MiB |      0%      Default |
+-------------------------------+----------------------+----------------------+
"""

XML = """\
<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<driver_version>555.42.02</driver_version>
	<cuda_version>12.5</cuda_version>
	<attached_gpus>1</attached_gpus>
	<gpu id="00000000:01:00.0">
		<product_name>NVIDIA GeForce RTX 4080</product_name>
		<mig_mode><current_mig>N/A</current_mig></mig_mode>
		<fb_memory_usage><total>16376 MiB</total><used>1000 MiB</used></fb_memory_usage>
		<bar1_memory_usage><total>256 MiB</total></bar1_memory_usage>
		<ecc_mode><current_ecc>N/A</current_ecc></ecc_mode>
		<temperature><gpu_temp>41 C</gpu_temp></temperature>
		<gpu_power_readings><current_power_limit>320.00 W</current_power_limit></gpu_power_readings>
		<module_power_readings><current_power_limit>N/A</current_power_limit></module_power_readings>
	</gpu>
</nvidia_smi_log>
"""


def _query(lines: list[str]) -> str:
    top = [
        "",
        "==============NVSMI LOG==============",
        "",
        "Driver Version : 555.42.02",
        "CUDA Version : 12.5",
        "",
        "Attached GPUs : 1",
    ]
    return "\n".join([*top, "GPU 00000000:01:00.0", *lines]) + "\n"


QUERY = _query(
    [
        "    Product Name                          : NVIDIA GeForce RTX 4080",
        "    MIG Mode",
        "        Current                           : N/A",
        "    FB Memory Usage",
        "        Total                             : 16376 MiB",
        "        Used                              : 1000 MiB",
        "    BAR1 Memory Usage",
        "        Total                             : 256 MiB",
        "    ECC Mode",
        "        Current                           : N/A",
        "    Temperature",
        "        GPU Current Temp                  : 41 C",
        "    GPU Power Readings",
        "        Current Power Limit               : 320.00 W",
        "    Module Power Readings",
        "        Current Power Limit               : N/A",
    ]
)

MIG_QUERY = _query(
    [
        "    Product Name                          : NVIDIA A100-SXM4-40GB",
        "    MIG Mode",
        "        Current                           : Enabled",
        "    MIG Device",
        "        Index                             : 0",
        "        FB Memory Usage",
        "            Total                         : 19968 MiB",
        "    MIG Device",
        "        Index                             : 1",
        "        Shared FB Memory Usage",
        "            Total                         : 9856 MiB",
        "    FB Memory Usage",
        "        Total                             : 40960 MiB",
    ]
)


def lscpu(cpus: int, threads: int, cores: int, sockets: int) -> str:
    """The text of ``lscpu``."""
    return (
        f"Architecture:        x86_64\nCPU(s):              {cpus}\nOn-line CPU(s) list: 0-{cpus - 1}\n"
        f"Thread(s) per core:  {threads}\nCore(s) per socket:  {cores}\nSocket(s):           {sockets}\n"
        f"NUMA node(s):        1\nVendor ID:           AuthenticAMD\nModel name:          Example CPU {cores}-Cores\n"
        "CPU(s) scaling MHz:  79%\nNUMA node0 CPU(s):   0-127\n"
    )


TOPOLOGY = (
    "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tSYS\t0-1,4-5\t0\t\tN/A\n"
    "GPU1\tSYS\t X \t2-3,6-7\t1\t\tN/A\n"
    "GPU2\tSYS\tSYS\t\t\t\tN/A\n"
    "\nLegend:\n\n  X    = Self\n"
)
NUMACTL = "available: 3 nodes (0-2)\nnode 0 cpus: 0 1 4 5\nnode 1 cpus: 2-3,6-7\nnode 2 cpus:\nnode 2 size: 65536 MB\n"
