"""Estimates the delegate's time on 64-bit ARM and its memory traffic, without a board.

    make bench-arm [FILES="/path/network.tflite ..."]

Cycles: the delegate's partitions of a file run once on an emulated AArch64, on one thread. A plugin of the emulator
counts how often each block of instructions runs. llvm-mca gives the reciprocal throughput B of the hot blocks: cycles
of a repetition in the steady state, by its models of Cortex-A72 and of Neoverse N1 (the server core of Cortex-A76). A
network takes sum(runs * B) cycles, if every access hits the first cache and no branch is mispredicted. Operators that
the delegate does not take are not run.

Memory traffic: cachegrind runs the same plan on x86-64 with the portable kernels and NEON's tiles, once with and once
without the inference. The difference of the misses of the last cache counts. Lines missed by writes are read, too, and
written back: 64 bytes * (read misses + 2 * write misses). Lines that are read and later written in place are written
back, too, which this does not count.
"""

import argparse
import bisect
import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"
LLVM = "19"  # its Neoverse N1 is no copy of Cortex-A57
PROCESSORS = {"Cortex-A72": "cortex-a72", "Cortex-A76": "neoverse-n1"}
KINDS = ("popcount", "elementwise", "packing", "rest")
# Of functions that neither count bits nor compute floats.
KIND_OF_FUNCTION = {"accumulate": "packing", "start_program": "elementwise", "run_program": "elementwise"}
HOT = 0.9995  # of the instructions
THREADS = (1, 4)
# Bytes, associativity and bytes of a line of the first caches and of the last one. In front: the kB of a second-level
# cache, how many processors share it, and the most of all together (see src/cache.h).
CACHES = {
    "1 MB (Raspberry Pi 4)": (1024, 4, 1024, ["--I1=49152,3,64", "--D1=32768,2,64", "--LL=1048576,16,64"]),
    "2 MB (Raspberry Pi 5)": (512, 1, 2048 // 4, ["--I1=65536,4,64", "--D1=65536,4,64", "--LL=2097152,16,64"]),
}

_FUNCTION = re.compile(r"([0-9a-f]{16}) <(.*)>:")
_INSTRUCTION = re.compile(r"\s*[0-9a-f]+:\s+(.*)")
_PLACE = re.compile(r"0x[0-9a-f]+ <.*>")  # in the program
_BRANCHES = re.compile(r"(b|b\.\w+|bl|br|blr|ret|cbn?z|tbn?z)\b")
_COUNTS_BITS = re.compile(r"cnt\s+v")
_COMPUTES_FLOATS = re.compile(r"f\w+\s+v\d+\.[24]s")


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other, how often, and what for."""

    instructions: tuple[str, ...]
    runs: int
    kind: str


def find_blocks(program: str, counts: str) -> list[Block]:
    """The blocks that ran, those with most instructions run first.

    A block that counts bits is "popcount", one that computes with vectors of floats "elementwise". Others are what
    their function does in other blocks, else what KIND_OF_FUNCTION says.

    # Arguments
        program: What `llvm-objdump -d -z --no-show-raw-insn` prints.
        counts: A line for each translation of a block: its address, number of instructions and runs.
    """
    bodies: dict[int, list[str]] = {}  # of functions, by their address
    names: dict[int, str] = {}
    for line in program.splitlines():
        if function := _FUNCTION.match(line):
            start = int(function[1], 16)
            bodies[start], names[start] = [], function[2]
        elif instruction := _INSTRUCTION.match(line):
            bodies[start].append(_PLACE.sub("0", instruction[1]))
    starts = sorted(bodies)
    runs: Counter[tuple[int, int]] = Counter()
    for line in counts.splitlines():
        address, size, times = line.split()
        runs[int(address, 16), int(size)] += int(times)
    join_pieces(runs, bodies)
    blocks = []
    for (address, size), times in runs.items():
        start = starts[bisect.bisect(starts, address) - 1]
        first = (address - start) // 4
        instructions = tuple(bodies[start][first : first + size])
        kind = _kind(instructions) or _kind(bodies[start]) or KIND_OF_FUNCTION.get(names[start], "rest")
        blocks.append(Block(instructions, times, kind))
    return sorted(blocks, key=lambda block: -len(block.instructions) * block.runs)


def join_pieces(runs: Counter[tuple[int, int]], bodies: dict[int, list[str]]) -> None:
    """Joins what the emulator translates in pieces, because it is long: a piece that runs only behind others.

    # Arguments
        runs: Of blocks, by their address and number of instructions. Is changed.
        bodies: Instructions of the functions, by their address.
    """
    starts = sorted(bodies)
    into = defaultdict(list)  # blocks that do not end with a branch, by the address behind them
    for address, size in runs:
        start = starts[bisect.bisect(starts, address) - 1]
        if not _BRANCHES.match(bodies[start][(address - start) // 4 + size - 1]):
            into[address + 4 * size].append((address, size))
    for piece in sorted(runs):
        before = into[piece[0]]
        if before and sum(runs[block] for block in before) == runs[piece]:
            behind = into[piece[0] + 4 * piece[1]]
            for address, size in before:
                joined = address, size + piece[1]
                runs[joined] += runs.pop((address, size))
                if piece in behind:
                    behind.append(joined)
            if piece in behind:
                behind.remove(piece)
            del runs[piece]


def _kind(instructions: Iterable[str]) -> str | None:
    text = "\n".join(instructions)
    return "popcount" if _COUNTS_BITS.search(text) else "elementwise" if _COMPUTES_FLOATS.search(text) else None


def hot_blocks(blocks: list[Block]) -> list[Block]:
    """The first blocks, with 99.95 % of the instructions that ran."""
    enough = HOT * sum(len(block.instructions) * block.runs for block in blocks)
    hot, done = [], 0
    for block in blocks:
        if done >= enough:
            break
        hot.append(block)
        done += len(block.instructions) * block.runs
    return hot


def analyse(blocks: list[Block], cpu: str) -> str:
    """What `llvm-mca -json` says of the blocks."""
    regions = [
        "\n".join([f"# LLVM-MCA-BEGIN {number}", *block.instructions, "# LLVM-MCA-END"])
        for number, block in enumerate(blocks)
    ]
    command = [f"llvm-mca-{LLVM}", "-mtriple=aarch64", f"-mcpu={cpu}", "-iterations=200", "-json"]
    return _run(command, input="\n".join(regions) + "\n")


def million_cycles(blocks: list[Block], analysis: str) -> dict[str, float]:
    """Million cycles of each kind: runs times cycles of a repetition, summed."""
    sums = dict.fromkeys(KINDS, 0.0)
    for region in json.loads(analysis)["CodeRegions"]:
        block, summary = blocks[int(region["Name"])], region["SummaryView"]
        sums[block.kind] += block.runs * summary["TotalCycles"] / summary["Iterations"] / 1e6
    return sums


def misses(output: str) -> tuple[int, int]:
    """Reads and writes that missed the last cache, of cachegrind's output file."""
    found = {
        key: line.split()
        for key, _, line in (line.partition(":") for line in output.splitlines())
        if key in ("events", "summary")
    }
    summary = dict(zip(found["events"], map(int, found["summary"]), strict=True))
    return summary["DLmr"], summary["DLmw"]


def megabytes(none: tuple[int, int], one: tuple[int, int]) -> float:
    """MB (10^6 bytes) that an inference moves, from the misses without it and with it."""
    return 64 * (one[0] - none[0] + 2 * (one[1] - none[1])) / 1e6


def _run(command: list[str], input: str | None = None) -> str:
    result = subprocess.run(command, input=input, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def measure_traffic(file: str, threads: int, kb: int, sharers: int, most: int, caches: list[str]) -> float:
    """MB that an inference of a file moves between the last cache and memory."""
    found = []
    together = min(kb * -(-threads // sharers), most)
    with tempfile.NamedTemporaryFile() as output:
        for inferences in ("0", "1"):
            command = ["valgrind", "--tool=cachegrind", *caches, f"--cachegrind-out-file={output.name}"]
            options = [f"LARQ_REP_NUM_THREADS={threads}", f"LARQ_REP_CACHE_KB={together}"]
            options.append("LARQ_REP_IMPLEMENTATION=portable")
            _run(["env", *options, *command, str(BUILD / "traffic" / "inference"), file, inferences])
            found.append(misses(Path(output.name).read_text()))
    return megabytes(*found)


def estimate(file: str) -> dict:
    """Everything about one file, as `--json` writes it."""
    program = str(BUILD / "arm" / "inference")
    with tempfile.NamedTemporaryFile() as output:
        plugin = f"{BUILD / 'native' / 'count_blocks.so'},out={output.name}"
        # A processor without SVE, for which memcpy would have its own form.
        printed = _run(["qemu-aarch64", "-cpu", "cortex-a72", "-plugin", plugin, program, file])
        counts = Path(output.name).read_text()
    macs, parts = (int(text) for text in re.findall(r"\d+", printed))
    blocks = find_blocks(_run([f"llvm-objdump-{LLVM}", "-d", "-z", "--no-show-raw-insn", program]), counts)
    hot = hot_blocks(blocks)
    return {
        "file": file,
        "million_macs": macs / 1e6,
        "partitions": parts,
        "million_instructions": sum(len(block.instructions) * block.runs for block in blocks) / 1e6,
        "blocks": len(hot),
        "million_cycles": {name: million_cycles(hot, analyse(hot, cpu)) for name, cpu in PROCESSORS.items()},
        "megabytes": {
            cache: {threads: measure_traffic(file, threads, *options) for threads in THREADS}
            for cache, options in CACHES.items()
        },
    }


def report(estimated: dict) -> str:
    """The tables of one file."""
    macs = estimated["million_macs"]
    lines = [
        f"{estimated['file']}: {macs:.0f} million MAC, {estimated['million_instructions']:.1f} million instructions, "
        f"{estimated['partitions']} partition(s), {estimated['blocks']} hot blocks",
        f"{'million cycles':24}" + "".join(f"{kind:>12}" for kind in (*KINDS, "sum", "MAC/cycle")),
    ]
    for name, cycles in estimated["million_cycles"].items():
        total = sum(cycles.values())
        cells = [f"{value:12.1f}" for value in (*cycles.values(), total, macs / total)]
        lines.append(f"{name:24}" + "".join(cells))
    lines.append(f"{'memory traffic, MB':24}" + "".join(f"{f'{n} thread(s)':>12}" for n in THREADS))
    for cache, moved in estimated["megabytes"].items():
        lines.append(f"{cache:24}" + "".join(f"{value:12.1f}" for value in moved.values()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="TFLite files")
    parser.add_argument("--json", type=Path, help="a file for the same figures")
    arguments = parser.parse_args()
    how = (
        "Estimated, not measured on ARM. Cycles: blocks of instructions counted on an emulated AArch64, one thread, "
        f"times their cycles by llvm-mca {LLVM} (Cortex-A72; Neoverse N1 for Cortex-A76); every access hits the first "
        "cache. Memory traffic: cachegrind, the same plan on x86-64 with portable kernels."
    )
    print(how)
    networks = []
    for file in arguments.files:
        networks.append(estimate(file))
        print("\n" + report(networks[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"estimated": how, "networks": networks}, indent=2) + "\n")


if __name__ == "__main__":
    main()
