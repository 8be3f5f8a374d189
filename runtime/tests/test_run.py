"""The command lce-run."""

import json

import graphs
import numpy as np
import pytest
from larq_rep_runtime import run
from PIL import Image


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 3))), rng, 3, 32, kernel=(6, 6), padding=1)
    path = tmp_path / "network.tflite"
    path.write_bytes(graph.content(y))
    return path


def test_json_with_profile(file, capfd):
    arguments = ["--random", "--json", "--profile", "--num_runs", "7", "--warmup_runs", "1", "--top", "3"]
    assert run.main([str(file), *arguments]) == 0
    printed = json.loads(capfd.readouterr().out)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    expected = graphs.run(file.read_bytes(), x)[0].reshape(-1)
    assert [entry["index"] for entry in printed["top"]] == list(np.argsort(-expected)[:3])
    assert printed["p10_ms"] <= printed["median_ms"] <= printed["p90_ms"]
    (partition,) = printed["profile"]
    assert partition["invocations"] == 7
    assert [step["name"] for step in partition["steps"]] == ["LceQuantize", "LceBconv2d"]
    # 32 filters of 6x6 taps with a word each.
    assert partition["packed_bytes"] == 32 * 36 * 4


def test_text_of_an_image(file, tmp_path, capfd):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "red.png")
    assert run.main([str(file), "--image", str(tmp_path / "red.png"), "--num_runs", "2", "--profile"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert "LceBconv2d" in "".join(printed) and "network.tflite" in printed[-1] and "of 2 runs" in printed[-1]


def test_image_is_scaled_cropped_and_normalised(tmp_path):
    # Left half red, right half blue: the middle square of a wide image sees both.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    found = run.read_image(str(tmp_path / "halves.png"), (1, 10, 10, 3))
    assert found.shape == (1, 10, 10, 3) and found.dtype == np.float32
    red = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(found[0, 5, 0], red, rtol=1e-5)
    assert found[0, 5, 9, 2] == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_threads", "0"], "--num_threads should be at least 1, found 0"),
        (["--num_runs", "0"], "--num_runs should be at least 1"),
        (["--implementation", "mmx"], "found 'mmx'"),
        (["--image", "no.png"], "no.png cannot be read"),
    ],
)
def test_says_what_is_wrong(file, arguments, words, capfd):
    assert run.main([str(file), *arguments]) == 2
    assert words in capfd.readouterr().err


def test_no_such_file(capfd):
    assert run.main(["no.tflite"]) == 2
    assert "no.tflite" in capfd.readouterr().err
