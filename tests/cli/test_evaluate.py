"""`lce evaluate` on models that are not of the zoo, on runs, and on what it refuses."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from commands import refused, run
from PIL import Image

from larq_rep import training, zoo
from larq_rep.converters import lce as engines
from larq_rep.training import datasets
from larq_rep_cli import lqr, runs

SIZE = 8


def classifier(channels, scale=1.0, offset=0.0, classes=3, batch=None, layers=()):
    """A model of `scale * x + offset` for images x in 0..1, whose scores are linear in the mean colour.

    An image that is prepared otherwise has another class.
    """
    weights, bias = scores(channels, classes)
    kernel = weights / scale
    inputs = tf.keras.Input((SIZE, SIZE, channels), batch_size=batch)
    x = inputs
    for layer in layers:
        x = layer(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    dense = tf.keras.layers.Dense(classes)
    model = tf.keras.Model(inputs, dense(x), name="mine")
    dense.set_weights([kernel, bias - offset * kernel.sum(axis=0)])
    return model


def scores(channels, classes):
    rng = np.random.default_rng(channels)
    weights = rng.normal(size=(channels, classes))
    # At the mean of all images each class is as likely as the others.
    return weights, -0.5 * weights.sum(axis=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """By channels a folder of class folders, with the class that `classifier` gives to an image in 0..1."""
    found = {}
    for channels in (1, 3):
        folder = found[channels] = tmp_path_factory.mktemp(f"pictures{channels}")
        rng = np.random.default_rng(10 * channels)
        weights, bias = scores(channels, 3)
        for number in range(11):
            levels = np.clip(
                rng.integers(0, 256, channels) + rng.integers(-9, 10, (SIZE, SIZE, channels)), 0, 255
            ).astype(np.uint8)
            label = int(((levels / 255).mean(axis=(0, 1)) @ weights + bias).argmax())
            (folder / str(label)).mkdir(exist_ok=True)
            Image.fromarray(levels[:, :, 0] if channels == 1 else levels).save(folder / str(label) / f"{number}.png")
        assert len(list(folder.iterdir())) > 1
    return found


def evaluated(*args):
    result = run("evaluate", *args, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["preparation"] in result.stderr
    return found


def converted(path, model):
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_the_users_own(channels, pictures, tmp_path):
    """Neither their names nor their files say how images are prepared: 0..1 is assumed, and said."""
    model = classifier(channels)
    model.save(tmp_path / "mine.h5")
    for path in (tmp_path / "mine.h5", converted(tmp_path / "mine.tflite", model)):
        found = evaluated(path, "--images", pictures[channels])
        assert (found["top1"], found["images"]) == (1.0, 11)
        assert "assumed" in found["preparation"] and found["preparation"].endswith("in 0..1")


def test_another_preparation_can_be_asked_for(pictures, tmp_path):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    model = classifier(3, layers=[tf.keras.layers.Rescaling(std.tolist(), mean.tolist())])
    model.save(tmp_path / "mine.keras")
    found = evaluated(tmp_path / "mine.keras", "--images", pictures[3], "--network", "ResNet20", "--set", "method=recu")
    assert found["top1"] == 1.0 and "less 0.485 0.456 0.406" in found["preparation"]
    message = refused("evaluate", tmp_path / "mine.keras", "--images", pictures[3], "--network", "ResNet2")
    assert "Did you mean ResNet20" in message


def test_networks_become_grey_or_coloured_images(pictures, tmp_path):
    """Grey pictures for three channels, coloured ones for one."""
    for channels in (1, 3):
        classifier(channels).save(tmp_path / "mine.h5")
        right = 0
        weights, bias = scores(channels, 3)
        for file in pictures[4 - channels].glob("*/*.png"):
            pixels = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB")) / 255
            right += int((pixels.reshape(-1, channels).mean(axis=0) @ weights + bias).argmax()) == int(file.parent.name)
        assert evaluated(tmp_path / "mine.h5", "--images", pictures[4 - channels])["top1"] == pytest.approx(right / 11)


@pytest.mark.parametrize("layers", ["Rescaling", "Normalization"])
def test_networks_that_scale_levels_themselves(layers, pictures, tmp_path):
    if layers == "Rescaling":
        first = tf.keras.layers.Rescaling(1 / 127.5, -1)
        model = classifier(3, 2.0, -1.0, layers=[first])
    else:
        first = tf.keras.layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0, 3600.0, 3600.0])
        # (255 x - mean) / 60 in place of x.
        model = classifier(3, layers=[first, tf.keras.layers.Rescaling(60 / 255, [120 / 255, 110 / 255, 100 / 255])])
    model.save(tmp_path / "mine.keras")
    for path in (tmp_path / "mine.keras", converted(tmp_path / "mine.tflite", model)):
        found = evaluated(path, "--images", pictures[3])
        assert found["top1"] == 1.0 and found["preparation"].endswith("in 0..255")


@pytest.mark.parametrize(
    "channels, dtype, scale, offset, said",
    [
        (3, tf.uint8, 1, 0, "in 0..1"),
        (1, tf.int8, 1, 0, "in 0..1"),
        (3, tf.int8, 2, -1, "in -1..1"),
        (1, tf.uint8, 255, 0, "in 0..255"),
    ],
)
def test_files_that_take_integers(channels, dtype, scale, offset, said, pictures, tmp_path):
    """An image is quantized as the file says, whose range tells what it was calibrated with."""
    converter = tf.lite.TFLiteConverter.from_keras_model(classifier(channels, scale, offset))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    colours = [np.zeros(channels), np.ones(channels), *np.random.default_rng(0).uniform(size=(20, channels))]
    images = [np.float32(scale * colour + offset) * np.ones((1, SIZE, SIZE, 1), np.float32) for colour in colours]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = dtype
    (tmp_path / "mine.tflite").write_bytes(converter.convert())
    found = evaluated(tmp_path / "mine.tflite", "--images", pictures[channels])
    assert found["top1"] >= 10 / 11  # An image may be next to the border between two classes.
    assert found["preparation"].endswith(said) and "range of its input" in found["preparation"]


def test_fixed_batches(pictures, tmp_path):
    """11 images in batches of 4: the last one is filled."""
    model = classifier(3, batch=4)
    model.save(tmp_path / "mine.h5")
    for path in (tmp_path / "mine.h5", converted(tmp_path / "mine.tflite", model)):
        assert evaluated(path, "--images", pictures[3], "--batch-size", 3)["top1"] == 1.0
        assert evaluated(path, "--images", pictures[3], "--limit", 2)["images"] == 2


def test_other_forms_of_inputs_and_outputs(pictures, tmp_path):
    """Named, without a last flattening."""
    model = classifier(3)
    inputs = tf.keras.Input((SIZE, SIZE, 3), name="image")
    scores = tf.keras.layers.Reshape((1, 1, 3))(model(inputs))
    tf.keras.Model({"image": inputs}, {"logits": scores}).save(tmp_path / "named.keras")
    assert evaluated(tmp_path / "named.keras", "--images", pictures[3])["top1"] == 1.0


def no_classifier(kind):
    layers, image = tf.keras.layers, tf.keras.Input((SIZE, SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(image)
    if kind == "inputs":
        other = tf.keras.Input((4,))
        return tf.keras.Model([image, other], layers.Dense(3)(layers.Concatenate()([pooled, other])))
    if kind == "outputs":
        return tf.keras.Model(image, {"logits": layers.Dense(3)(pooled), "boxes": layers.Dense(4)(pooled)})
    if kind == "map":
        return tf.keras.Model(image, layers.Conv2D(3, 3)(image))
    if kind == "one":
        return tf.keras.Model(image, layers.Dense(1)(pooled))
    shapes = {"vector": (20,), "series": (20, 3), "volume": (4, 4, 4, 3), "free": (None, None, 3), "rgba": (8, 8, 4)}
    shape = shapes[kind]
    vector = tf.keras.Input(shape)
    flat = layers.Flatten()(vector) if None not in shape else layers.GlobalAveragePooling2D()(vector)
    return tf.keras.Model(vector, layers.Dense(3)(flat))


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("inputs", "one input of images"),
        ("vector", "one input of images"),
        ("series", "one input of images"),
        ("volume", "one input of images"),
        ("rgba", "one input of images"),
        ("free", "images of a fixed size"),
        ("outputs", "one output"),
        ("map", "one output"),
        ("one", "one output"),
    ],
)
def test_what_is_no_classifier_of_images(kind, expected, pictures, tmp_path):
    no_classifier(kind).save(tmp_path / "other.h5")
    assert f"Expected {expected}" in refused("evaluate", tmp_path / "other.h5", "--images", pictures[3])


def test_numbers_of_folders(pictures, tmp_path):
    """That are no numbers of classes: in alphabetical order, as a training takes them."""
    classifier(3).save(tmp_path / "mine.h5")
    for old, new in enumerate(("10", "7", "9")):
        (tmp_path / "renamed" / new).mkdir(parents=True)
        for file in pictures[3].glob(f"{old}/*.png"):
            shutil.copy(file, tmp_path / "renamed" / new)
    found = evaluated(tmp_path / "mine.h5", "--images", tmp_path / "renamed")
    assert found["top1"] == 1.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run as `lqr train` leaves it, of a network with its initial values, on pictures in folders of odd numbers."""
    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for split, names in (("train", ("1", "2", "10", "20")), ("test", ("2", "10", "20"))):
        for name in names:
            (root / "data" / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (rng.integers(12, 30), rng.integers(12, 30), 3), np.uint8)
                Image.fromarray(pixels).save(root / "data" / split / name / f"{i}.png")
    tf.keras.utils.set_random_seed(3)
    arguments = {"width": 4, "method": "recu", "input_size": [16, 16]}
    config = training.Config(
        "VGGSmall", str(root / "data"), training.get_recipe("recu"), arguments, num_classes=4, channels=3
    )
    (root / "run" / "1-binary").mkdir(parents=True)
    config.write(root / "run")
    network = runs.network(config)
    network.save_weights(root / "run" / "1-binary" / "best.h5")
    return root


def test_a_run_and_its_file_need_no_options(trained):
    """What `lce evaluate` finds is what `lqr evaluate` finds, whose classes and preparation are those of the run."""
    expected = json.loads(run("evaluate", trained / "run", "--json", program=lqr.main).stdout)
    assert 0 < expected["top1"] < 1 and expected["images"] == 18
    found = evaluated(trained / "run", "--images", trained / "data" / "test")
    assert (found["images"], found["top1"]) == (18, expected["top1"])
    assert "recipe recu of the run" in found["preparation"]


@pytest.mark.slow
def test_the_file_of_a_run_needs_no_options(trained):
    """It says how images are prepared, and the names of the classes."""
    assert run("convert", trained / "run", "-o", trained / "run.tflite").exit_code == 0
    found = evaluated(trained / "run.tflite", "--images", trained / "data" / "train")
    assert "run.tflite says" in found["preparation"] and "less 0.485" in found["preparation"]
    # In this folder lqr evaluate tests on the images that were trained on.
    (trained / "again").mkdir()
    for split in ("train", "test"):
        (trained / "again" / split).symlink_to(trained / "data" / "train")
    source = datasets.load(str(trained / "again"))
    recipe = training.Config.read(trained / "run").recipe
    interpreter = engines.any_interpreter((trained / "run.tflite").read_bytes())
    right = 0
    for images, labels in datasets.batches(source, recipe.augmentation, 16, 8, training=False):
        right += int((interpreter.predict(images.numpy()).argmax(axis=1) == labels.numpy()).sum())
    assert found["top1"] == pytest.approx(right / 24)


def test_classes_that_a_run_does_not_know(trained, tmp_path):
    shutil.copytree(trained / "data" / "test", tmp_path / "images")
    (tmp_path / "images" / "2").rename(tmp_path / "images" / "3")
    message = refused("evaluate", trained / "run", "--images", tmp_path / "images")
    assert "has the folder '3'" in message and "1, 10, 2, 20" in message


@pytest.mark.slow
def test_layers_tell_the_form_of_a_network(tmp_path, pictures):
    model = zoo.ResNet20(method="fracbnn_gated", width=4, num_classes=3, input_shape=(SIZE, SIZE, 3))
    model.save(tmp_path / "zoo.h5")
    assert "less 0 0 0" in evaluated(tmp_path / "zoo.h5", "--images", pictures[3])["preparation"]
