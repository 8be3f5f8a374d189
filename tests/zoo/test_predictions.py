import json

import numpy as np
import pytest
import tensorflow as tf

from larq_rep import zoo
from larq_rep.datasets import DATASETS


def outputs(classes, *rows):
    """For each row a 3 for the first class in it, a 2 for the second, ..."""
    result = np.zeros((len(rows), classes), np.float32)
    for image, row in zip(result, rows, strict=True):
        image[row] = range(3, 3 - len(row), -1)
    return result


def test_names_are_those_of_the_data_set_in_the_record():
    model = zoo.ResNet20(width=2)
    found = zoo.decode_predictions(model, outputs(10, [3, 0], [9, 1]), top=2)
    assert found == [[("cat", 3.0), ("airplane", 2.0)], [("truck", 3.0), ("automobile", 2.0)]]
    lost = tf.keras.Model(model.inputs, model.outputs)
    with pytest.raises(ValueError, match="no record .* network='ResNet20'"):
        zoo.decode_predictions(lost, outputs(10, [3]))
    for network in ("ResNet20", zoo.get_network("ResNet20")):
        assert zoo.decode_predictions(lost, outputs(10, [5]), 1, network=network) == [[("dog", 3.0)]]


def test_own_classes():
    model = zoo.ResNet20(width=2, num_classes=3, input_shape=(8, 8, 1))
    assert zoo.decode_predictions(model, outputs(3, [2]), 1, classes=["a", "b", "c"]) == [[("c", 3.0)]]
    with pytest.raises(ValueError, match="images of 1 channels, so it was not trained on cifar10"):
        zoo.decode_predictions(model, outputs(3, [2]))
    with pytest.raises(ValueError, match="3 classes, but there are 2 names"):
        zoo.decode_predictions(model, outputs(3, [2]), classes=["a", "b"])
    with pytest.raises(ValueError, match=r"expected predictions \(images, classes\), found \(3,\)"):
        zoo.decode_predictions(model, outputs(3, [2])[0], classes=["a", "b", "c"])


def test_names_of_imagenet_are_those_of_keras(monkeypatch, tmp_path):
    utilities = tf.keras.applications.imagenet_utils
    model = zoo.ResNetE18(input_shape=(32, 32, 3))
    file = tmp_path / "imagenet_class_index.json"
    file.write_text(json.dumps({str(i): [f"n{i:08}", f"name {i}"] for i in range(1000)}))
    module = __import__(utilities.decode_predictions.__module__, fromlist=["CLASS_INDEX", "data_utils"])
    monkeypatch.setattr(module, "CLASS_INDEX", None)
    monkeypatch.setattr(module.data_utils, "get_file", lambda *args, **kwargs: str(file))
    found = zoo.decode_predictions(model, outputs(1000, [999, 7]), top=2)
    assert found == [[("name 999", 3.0), ("name 7", 2.0)]]

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(module, "CLASS_INDEX", None)
    monkeypatch.setattr(module.data_utils, "get_file", unreachable)
    with pytest.raises(FileNotFoundError, match=r"imagenet_class_index.json nor could Keras download them: no network"):
        zoo.decode_predictions(model, outputs(1000, [999]))


def test_data_sets_have_a_name_for_each_class():
    assert all(len(record.classes) in (0, record.num_classes) for record in DATASETS)
