"""Turns that fit the cache, maps written in place, and blocks of weights."""

import json
import re
from pathlib import Path

import graphs
import numpy as np
import pytest
from larq_rep_runtime import available_implementations

IMPLEMENTATIONS = available_implementations()


def residual(size, channels, blocks, times=1):
    """Blocks of a binary convolution with TILE, a shortcut and PReLU, and 2 x 2 pooling at the end."""
    graph, rng = graphs.Graph(), np.random.default_rng(0)
    x = graph.input((1, size, size, channels))
    for _ in range(blocks):
        y = graph.bconv(graph.quantize(x), rng, channels, channels // times)
        y = graph.tile(y, times) if times > 1 else y
        x = graph.prelu(graph.elementwise("ADD", y, x), rng.normal(0, 0.3, channels))
    return graph.content(graph.average_pool(x))


def profiled(content, x, capfd, threads, **options):
    capfd.readouterr()
    (y,) = graphs.run(content, x, threads, profile=1, **options)
    (line,) = re.findall("larq-rep profile: (.*)", capfd.readouterr().err)
    return y, json.loads(line)


def image(size, channels):
    return np.random.default_rng(1).normal(size=(1, size, size, channels)).astype(np.float32)


@pytest.mark.parametrize(("size", "channels", "times"), [(28, 96, 1), (14, 256, 4), (7, 160, 1)])
def test_same_bits_for_every_cache(size, channels, times):
    content, x = residual(size, channels, 3, times), image(size, channels)
    expected = graphs.run(content, x, fuse=0)[0]
    for implementation in IMPLEMENTATIONS:
        for threads in (1, 2, 4, 8):
            for cache_kb in (1, 100, 4096):
                found = graphs.run(content, x, threads, cache_kb=cache_kb, implementation=implementation)[0]
                graphs.assert_same(found, expected, f"{implementation}, {threads} threads, {cache_kb} kB")


def test_maps_are_written_in_place(capfd):
    """A block more needs no map more."""
    x = image(14, 256)
    map_bytes = x.nbytes
    few, many = (
        profiled(residual(14, 256, blocks), x, capfd, 1, cache_kb=4096)[1]["memory_bytes"] for blocks in (3, 6)
    )
    packed = 16 * 16 * 8 * 4  # signs with a border
    constants = 14 * 1024 * 4  # of a block
    assert many - few < 3 * (packed + constants) < map_bytes


def test_rows_of_turns_fit_the_cache(capfd):
    """All maps together have 7.7 MB."""
    x = image(112, 64)
    _, found = profiled(residual(112, 64, 3), x, capfd, 1, cache_kb=512)
    assert found["memory_bytes"] < 1_200_000


@pytest.mark.parametrize("threads", [4, 8])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("size", "channels"), [(112, 64), (56, 128), (28, 256), (14, 512), (7, 512)])
def test_every_thread_has_two_parts(size, channels, implementation, threads, capfd):
    x = image(size, channels)
    options = {"cache_kb": 1024, "implementation": implementation}
    _, found = profiled(residual(size, channels, 1), x, capfd, threads, **options)
    # 3 x 3 pixels of the last pool have five grains.
    parts = {step["name"]: step["parts"] for step in found["steps"] if size > 7 or "POOL" not in step["name"]}
    assert len(parts) >= 2 and min(parts.values()) >= 2 * threads, parts
    assert all(count >= 2 * threads for name, count in parts.items() if "Bconv2d" in name), parts


def test_reads_the_size_of_the_cache(capfd):
    """1 MB where Linux tells nothing; at most a quarter of the third level."""
    x = image(4, 32)
    content = residual(4, 32, 1)
    sizes, sharers = {}, 1
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"), reverse=True):
        level = int((cache / "level").read_text())
        sizes[level] = int((cache / "size").read_text().strip().removesuffix("K"))
        if level == 2:
            ranges = [part.split("-") for part in (cache / "shared_cpu_list").read_text().strip().split(",")]
            sharers = sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)
    for threads in (1, 2, 5):
        kb = 1024
        if 2 in sizes:
            kb = min(sizes[2] * -(-threads // sharers), sizes[3] // 4 if 3 in sizes else 1 << 30)
        assert profiled(content, x, capfd, threads)[1]["cache_bytes"] == kb * 1024
    assert profiled(content, x, capfd, 2, cache_kb=300)[1]["cache_bytes"] == 300 * 1024
