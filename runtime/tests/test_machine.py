"""What `lce-run --json` says of the machine, read from folders like those of a board, a PC and a container."""

import pytest
from larq_rep_runtime import machine

PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    # The kernel of 64-bit ARM names no processor.
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
    "proc/meminfo": "MemTotal:        8257120 kB\nMemFree:         7000000 kB\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    **{
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}": f"{value}\n"
        for cpu in (0, 2, 10)
        for name, value in {
            "scaling_governor": "ondemand",
            "scaling_min_freq": 1500000,
            "scaling_max_freq": 2400000,
            "scaling_cur_freq": 2000000 + cpu,
        }.items()
    },
    "sys/devices/system/cpu/cpu3/online": "0\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/temp": "-2000\n",
    "sys/class/thermal/thermal_zone2/type": "off\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
}


@pytest.fixture
def root(tmp_path):
    def build(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return build


def told(root):
    """Without what Python tells of the machine of the test."""
    about = machine.describe(root)
    assert isinstance(about.pop("cores"), int) and about.pop("architecture") and about.pop("kernel")
    return about


def test_a_board(root):
    folder = root(PI_5)
    frequencies = {"governor": "ondemand", "min_mhz": 1500.0, "max_mhz": 2400.0}
    assert told(folder) == {
        "board": "Raspberry Pi 5 Model B Rev 1.0",
        "processor": "implementer 0x41, part 0xd0b",
        "memory_bytes": 8257120 * 1024,
        "os": "Debian GNU/Linux 12 (bookworm)",
        "cpus": [{"cpu": cpu, **frequencies} for cpu in (0, 2, 10)],
    }
    assert machine.state(folder) == {
        "mhz": {"0": 2000.0, "2": 2000.002, "10": 2000.01},
        "temperatures": [{"type": "cpu-thermal", "celsius": 48.312}, {"celsius": -2.0}],
    }


def arm(*parts):
    return "".join(f"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n" for part in parts)


@pytest.mark.parametrize(
    "cpuinfo, processor",
    [
        ("processor: 0\nmodel name: Xeon(R): 8 cores\nprocessor: 1\nmodel name: other\n", "Xeon(R): 8 cores"),
        # Every Raspberry Pi calls itself BCM2835, and 32-bit systems have a name without the kind of the cores.
        ("model name: ARMv7 Processor rev 3\n" + arm("0xd08") + "Hardware: BCM2835", "implementer 0x41, part 0xd08"),
        (arm("0xd05", "0xd0b", "0xd05"), "implementer 0x41, part 0xd05; implementer 0x41, part 0xd0b"),
    ],
)
def test_processors(cpuinfo, processor, root):
    assert told(root({"proc/cpuinfo": cpuinfo})) == {"processor": processor}


def test_what_the_system_does_not_tell_is_left_out(root):
    assert told(root({})) == {} == machine.state(root({}))
    damaged = {name: b"\xff\xfe" for name in PI_5 if name.startswith("sys/") and "governor" not in name}
    folder = root({**damaged, "proc/meminfo": "MemTotal: much", "proc/cpuinfo": "\0", "etc/os-release": ""})
    assert told(folder) == {} == machine.state(folder)
    # A zone that is switched off has a file that cannot be read.
    (folder / "sys/class/thermal/thermal_zone0/temp").unlink()
    (folder / "sys/class/thermal/thermal_zone0/temp").mkdir()
    assert machine.state(folder) == {}
