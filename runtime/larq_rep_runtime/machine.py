"""What the system tells of the machine that a file runs on, so that figures of several machines can be compared."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

_ROOT = Path("/")


def describe(root: Path = _ROOT) -> dict[str, Any]:
    """What does not change while a file runs; what the system does not tell is left out.

    # Arguments
        root: The folder in which `proc`, `sys` and `etc` are.

    # Returns
        `board`, as the device tree calls it; `processor`; `architecture`; `cores`; `memory_bytes`; `os`; `kernel`; and
        `cpus`, for each of those that change their frequency `cpu`, `governor`, `min_mhz` and `max_mhz`.
    """
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?(.*?)"?$', _text(root / "etc/os-release"), re.MULTILINE)
    cpus = []
    for cpu, folder in _numbered(root / "sys/devices/system/cpu", "cpu"):
        frequency = folder / "cpufreq"
        known = {
            "governor": _text(frequency / "scaling_governor"),
            "min_mhz": _thousandths(frequency / "scaling_min_freq"),
            "max_mhz": _thousandths(frequency / "scaling_max_freq"),
        }
        if found := _told(known):
            cpus.append({"cpu": cpu, **found})
    return _told(
        {
            "board": _text(root / "proc/device-tree/model"),
            "processor": _processor(_text(root / "proc/cpuinfo")),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "memory_bytes": int(memory[1]) * 1024 if memory else None,
            "os": system[1] if system else None,
            "kernel": f"{platform.system()} {platform.release()}".strip(),
            "cpus": cpus,
        }
    )


def state(root: Path = _ROOT) -> dict[str, Any]:
    """What changes: `mhz`, the frequency of each CPU now, and `temperatures`, the `type` and `celsius` of each zone."""
    cpus = _numbered(root / "sys/devices/system/cpu", "cpu")
    zones = _numbered(root / "sys/class/thermal", "thermal_zone")
    temperatures = ({"type": _text(zone / "type"), "celsius": _thousandths(zone / "temp")} for _, zone in zones)
    return _told(
        {
            "mhz": _told({str(cpu): _thousandths(folder / "cpufreq/scaling_cur_freq") for cpu, folder in cpus}),
            "temperatures": [_told(zone) for zone in temperatures if zone["celsius"] is not None],
        }
    )


def _processor(cpuinfo: str) -> str:
    """The processor's name; of ARM, which has vague or wrong ones, the numbers of the maker and kind of its cores."""
    fields: dict[str, list[str]] = {}
    for key, colon, value in (line.partition(":") for line in cpuinfo.splitlines()):
        if colon:
            fields.setdefault(key.strip(), []).append(value.strip())
    cores = dict.fromkeys(zip(fields.get("CPU implementer", []), fields.get("CPU part", []), strict=False))
    if cores:
        return "; ".join(f"implementer {maker}, part {part}" for maker, part in cores)
    return fields.get("model name", [""])[0]


def _numbered(folder: Path, name: str) -> list[tuple[int, Path]]:
    """The entries `name0`, `name1`, ... of a folder with their numbers, in their order."""
    entries = ((re.fullmatch(rf"{name}(\d+)", path.name), path) for path in folder.glob(f"{name}*"))
    return sorted((int(match[1]), path) for match, path in entries if match)


def _thousandths(file: Path) -> float | None:
    text = _text(file)
    return int(text) / 1000 if re.fullmatch(r"-?\d+", text) else None


def _text(file: Path) -> str:
    """The text of a file; empty if it cannot be read, as zones of the system may be that are switched off."""
    try:
        return file.read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _told(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
