"""What works without the package `larq_rep_runtime`, and what is said where it is needed."""

import subprocess
import sys

import larq_rep_runtime.metadata
import pytest

from larq_rep.converters import metadata

WITHOUT = """
import sys
sys.modules["larq_rep_runtime"] = None
import larq_rep
import numpy as np
import tensorflow as tf
from larq_rep.converters import convert, describe, fold, verify
from larq_rep.converters.faults import audit_old_faults
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.latency import benchmark
from larq_rep.converters.runtime import RuntimeMissingError
from support import one_padded, randomize

image = tf.keras.Input((4, 4, 32))
model = randomize(tf.keras.Model(image, one_padded(8)(image)))
content, report = convert(model)
assert report.bitpacked == 1
assert describe(content).metadata["version"] == larq_rep.__version__
assert not audit_old_faults(Flatbuffer(content), content)
x = np.random.default_rng(0).standard_normal((1, 4, 4, 32)).astype(np.float32)
for storage, folded in (("float32", fold(content)[0]), ("int8", convert(model, float_weights="int8")[0])):
    result = verify(model, folded, x)
    assert result.ok and list(result.engines) == ["lce"]
    assert result.notes[0].startswith("The delegate was not compared: ") and "./runtime" in result.notes[0]
    assert verify(model, folded, x, runtime="lce").notes == result.notes[1:]
assert benchmark({"file": content}, modes=["default"], num_runs=1)[0].median_ms
for call in (
    lambda: verify(model, content, x, runtime="delegate"),
    lambda: benchmark({"file": content}, modes=["delegate"], num_runs=1),
):
    try:
        call()
    except RuntimeMissingError as error:
        assert "larq-rep-runtime, which is not installed" in str(error) and "pip install ./runtime" in str(error)
    else:
        raise AssertionError("no error")
"""


def test_without_the_runtime():
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{WITHOUT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_readers_of_metadata_agree(bits):
    from larq_rep.converters import convert

    content, _ = convert(bits)
    found = metadata.read(content)
    assert found["network"] == "bits" and found == larq_rep_runtime.metadata.read_metadata(content)
    for damaged in (content[: len(content) // 2], content[:8], b"", bytes(64)):
        assert metadata.read(damaged) == {}


def test_the_old_name_of_latency_warns(monkeypatch):
    from larq_rep.converters import latency

    monkeypatch.delitem(sys.modules, "larq_rep.converters.benchmark", raising=False)
    with pytest.warns(DeprecationWarning, match="is now larq_rep.converters.latency"):
        from larq_rep.converters.benchmark import benchmark
    assert benchmark is latency.benchmark
