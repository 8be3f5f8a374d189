"""The estimate for 64-bit ARM: its arithmetic on a small recording, its host against TFLite, and all of it."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import arm
import graphs
import numpy as np
import pytest

RUNTIME = Path(__file__).resolve().parents[1]
PROGRAMS = ("aarch64-linux-gnu-gcc", "qemu-aarch64", "llvm-mca-19", "llvm-objdump-19", "valgrind")

PROGRAM = """
inference:	file format elf64-littleaarch64

Disassembly of section .text:

0000000000001000 <tile_4x4>:
    1000:      	ldr	q0, [x1], #0x10
    1004:      	cnt	v0.16b, v0.16b
    1008:      	b.ne	0x1000 <tile_4x4>
    100c:      	uadalp	v1.4s, v2.8h
    1010:      	ret

0000000000001014 <accumulate>:
    1014:      	ld1r	{ v0.4s }, [x1]
    1018:      	cbz	x2, 0x1014 <accumulate>

000000000000101c <run>:
    101c:      	br	x3
    1020:      	fmul	v0.4s, v0.4s, v1.4s
    1024:      	ret

0000000000001028 <run_program>:
    1028:      	mov	x0, x1

000000000000102c <run_chunk>:
    102c:      	add	x0, x0, x1
    1030:      	ret
"""

# The first block was translated twice; the last one is colder than 0.05 % of the instructions.
COUNTS = """1000 3 40000
1000 3 60000
100c 2 10000
1014 2 30000
101c 1 20000
1020 2 20000
1028 1 5000
102c 2 3000
102c 1 20
"""

BLOCKS = [
    ("popcount", 100_000, "ldr\tq0, [x1], #0x10|cnt\tv0.16b, v0.16b|b.ne\t0"),
    ("packing", 30_000, "ld1r\t{ v0.4s }, [x1]|cbz\tx2, 0"),
    ("elementwise", 20_000, "fmul\tv0.4s, v0.4s, v1.4s|ret"),
    ("popcount", 10_000, "uadalp\tv1.4s, v2.8h|ret"),
    ("elementwise", 20_000, "br\tx3"),
    ("rest", 3_000, "add\tx0, x0, x1|ret"),
    ("elementwise", 5_000, "mov\tx0, x1"),
]


def a_network(size, filters):
    """Two convolutions of 1 x 1 with a TRANSPOSE, which the delegate does not take, between them."""
    graph, rng = graphs.Graph(), np.random.default_rng(0)
    x = graph.bconv(graph.quantize(graph.input((1, size, size, 64))), rng, 64, filters, (1, 1))
    y = graph.transpose(x, (0, 2, 1, 3))
    return graph.content(graph.bconv(graph.quantize(y), rng, filters, 32, (1, 1)))


def test_blocks():
    blocks = arm.find_blocks(PROGRAM, COUNTS)
    assert len(blocks) == 8 and sum(len(block.instructions) * block.runs for block in blocks) == 451_020
    assert [(b.kind, b.runs, "|".join(b.instructions)) for b in arm.hot_blocks(blocks)] == BLOCKS


def test_long_blocks():
    """A loop of five instructions in three pieces, entered with one more in front; and a piece with a way into it."""
    bodies = {0x1000: ["mov\tx0, x1", *4 * ["fmul\tv0.4s, v0.4s, v1.4s"], "b.ne\t0"], 0x2000: ["nop", "ret"]}
    runs = Counter({(0x1000, 2): 3, (0x1004, 1): 7, (0x1008, 2): 10, (0x1010, 2): 10, (0x2000, 1): 5, (0x2004, 1): 6})
    arm.join_pieces(runs, bodies)
    assert runs == {(0x1000, 6): 3, (0x1004, 5): 7, (0x2000, 1): 5, (0x2004, 1): 6}


def test_table():
    blocks = [arm.Block(tuple(text.split("|")), runs, kind) for kind, runs, text in BLOCKS]
    cycles = (302, 200, 400, 150, 200, 100, 60)
    regions = [
        {"Name": str(i), "SummaryView": {"Iterations": 200, "TotalCycles": total}} for i, total in enumerate(cycles)
    ]
    found = arm.million_cycles(blocks, json.dumps({"CodeRegions": regions}))
    # By hand: 100,000 x 1.51 + 10,000 x 0.75; 20,000 x (2 + 1) + 5,000 x 0.3; 30,000 x 1; 3,000 x 0.5.
    assert found == pytest.approx({"popcount": 0.1585, "elementwise": 0.0615, "packing": 0.03, "rest": 0.0015})
    estimated = {
        "file": "network.tflite",
        "million_macs": 12_575,
        "partitions": 1,
        "million_instructions": 0.45102,
        "blocks": 7,
        "million_cycles": {"Cortex-A72": {kind: 1000 * value for kind, value in found.items()}},
        "megabytes": {"1 MB": {1: 83.99, 4: 144.04}},
    }
    lines = [line.split() for line in arm.report(estimated).splitlines()]
    assert lines[1] == ["million", "cycles", "popcount", "elementwise", "packing", "rest", "sum", "MAC/cycle"]
    assert lines[2] == ["Cortex-A72", "158.5", "61.5", "30.0", "1.5", "251.5", "50.0"]
    assert lines[4] == ["1", "MB", "84.0", "144.0"]


def test_traffic():
    events = "desc: LL cache: 1048576 B, 64 B, 16-way\nevents: Ir I1mr ILmr Dr D1mr DLmr Dw D1mw DLmw \nfn=main\n"
    none = arm.misses(events + "summary: 117588455 3534 2576 31287549 476407 269819 23007757 472727 426914\n")
    one = arm.misses(events + "summary: 1847229513 3812 2854 220214146 4342352 921415 160434450 1339354 757307\n")
    assert (none, one) == ((269_819, 426_914), (921_415, 757_307))
    assert arm.megabytes(none, one) == pytest.approx(64e-6 * (651_596 + 330_393 + 330_393))


def test_host_against_tflite(tmp_path):
    """The MACs by their formula, and as many partitions as TFLite makes."""
    content = a_network(5, 40)
    (tmp_path / "network.tflite").write_bytes(content)
    subprocess.run(["make", "-s", "-C", RUNTIME, "build/native/inference"], check=True)
    command = [RUNTIME / "build" / "native" / "inference", tmp_path / "network.tflite"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    interpreter = graphs.interpreter(content)
    partitions = sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    assert partitions == 2
    assert printed == f"{25 * 64 * 40 + 25 * 40 * 32} MAC, {partitions} parts\n"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}")
def test_estimate(tmp_path):
    """Against what the vector units and the sizes of the tensors allow."""
    (tmp_path / "network.tflite").write_bytes(a_network(128, 64))
    files = [f"FILES={tmp_path / 'network.tflite'}", f"JSON={tmp_path / 'estimate.json'}"]
    command = ["make", "-s", "-C", RUNTIME, "bench-arm", f"PYTHON={sys.executable}", *files]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("Estimated")
    estimate = json.loads((tmp_path / "estimate.json").read_text())
    (network,) = estimate["networks"]
    assert network["partitions"] == 2
    pixels = 128 * 128
    macs = pixels * 64 * (64 + 32)
    assert network["million_macs"] == pytest.approx(macs / 1e6)
    for cycles in network["million_cycles"].values():
        # Both processors have two vector units of 16 bytes. XOR, CNT and ADD for 128 MAC:
        assert 1 < cycles["popcount"] / (macs / 128 * 3 / 2 / 1e6) < 4
        # A conversion, two additions and a product for four results, and a comparison for four signs:
        assert 1 < cycles["elementwise"] / (pixels * (4 * 96 + 128) / 4 / 2 / 1e6) < 10
        assert cycles["packing"] > 0 and cycles["rest"] > 0
    # Both maps of 64 channels in front of quantizers are read; results are read into the cache, written, written back.
    expected = 4 * pixels * (64 + 64 + 2 * (64 + 32)) / 1e6
    found = [moved for by_threads in network["megabytes"].values() for moved in by_threads.values()]
    assert found == pytest.approx(4 * [expected], rel=0.05)
