"""What a .tflite file says of its network's images: the JSON of this package, and TFLite's standard metadata."""

import dataclasses
import io
import json
import zipfile

import flatbuffers
import larq as lq
import larq_rep_runtime
import larq_rep_runtime.preparation
import numpy as np
import pytest
import tensorflow as tf
from larq_compute_engine.mlir.python import tflite_schema as schema
from PIL import Image
from support import first_quick, shallow_resnet20

from larq_rep import training
from larq_rep.converters import convert, fold, lce, metadata
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.images import Preparation
from larq_rep.record import known_images
from larq_rep.training import datasets, pipeline

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
EXPECTED = {
    "size": [32, 32],
    "channels": 3,
    "range": [0.0, 1.0],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "resize": 32,
    "crop": [32, 32],
    "mirrored": False,
}


@pytest.fixture(scope="module")
def converted():
    model = shallow_resnet20(method="recu", width=4)
    return model, convert(model)[0]


def by_pillow(image, said):
    """An image in 0..1 before the normalisation, prepared by Pillow as the JSON says."""
    (height, width), resize = said["size"], said["resize"]
    least = [round(side * resize / min(height, width)) for side in (height, width)]
    image = image.convert({1: "L", 3: "RGB"}[said["channels"]])
    if image.height * least[1] >= image.width * least[0]:
        covering = (least[1], image.height * least[1] // image.width)
    else:
        covering = (image.width * least[0] // image.height, least[0])
    image = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (round((image.width - width) / 2), round((image.height - height) / 2))
    return np.atleast_3d(np.asarray(image.crop((left, top, left + width, top + height)))) / 255


def ways():
    """All ways in which the recipes of the package prepare images, each with one recipe's name."""
    found = {}
    for name, recipe in training.RECIPES.items():
        for data in (recipe.dataset, *recipe.other_statistics):
            images = recipe.on(data).augmentation
            found.setdefault((images.mean, images.std, images.test_resize), (name, images))
    return found.values()


@pytest.mark.parametrize("channels, size", first_quick([(3, (32, 32)), (1, (24, 40)), (3, (24, 40)), (3, (40, 24))], 2))
def test_every_recipe_and_its_json_prepare_alike(channels, size):
    """Training in TensorFlow, and Pillow by the JSON: levels within one, whatever the sides of image and network."""
    rng = np.random.default_rng(0)
    shapes = [(75, 50), (41, 90), size]
    pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).resize(shape[::-1]) for shape in shapes]
    mode = {1: "L", 3: "RGB"}[channels]
    ways_ = list(ways())
    assert len(ways_) >= 5
    for name, augmentation in ways_:
        said = json.loads(json.dumps(augmentation.at(size, channels).to_dict()))
        for picture in pictures:
            pixels = np.atleast_3d(np.asarray(picture.convert(mode)))
            source = pipeline.in_memory(
                {split: (pixels[None], np.zeros(1, np.int64)) for split in ("train", "test")},
                name=name, num_classes=1, channels=channels, mirrors=True, decode=tf.identity,
            )  # fmt: skip
            ((trained, _),) = datasets.batches(source, augmentation, size, 1, training=False)
            mean, std = said.get("mean", [0.0] * channels), said.get("std", [1.0] * channels)
            trained = trained.numpy()[0]
            assert trained.shape == (*size, channels)
            np.testing.assert_allclose(
                trained * std + mean, by_pillow(picture, said), rtol=0, atol=1.001 / 255, err_msg=name
            )
            np.testing.assert_array_equal(Preparation.from_dict(said)([pixels])[0], trained)


def test_a_record_says_preparation_and_classes(converted):
    _, content = converted
    said = metadata.read(content)
    assert said["network"] == "ResNet20" and said["input"] == EXPECTED and said["classes"] == CIFAR10
    assert "mirrored_input" not in said  # which is for versions before 0.2
    assert metadata.preparation(said, (32, 32, 3)).to_dict() == {k: v for k, v in EXPECTED.items() if k != "mirrored"}
    assert larq_rep_runtime.metadata.read_metadata(content) == said


def own():
    inputs = tf.keras.Input((8, 8, 1))
    x = lq.layers.QuantConv2D(32, 3, kernel_quantizer="ste_sign", input_quantizer=None)(inputs)
    x = lq.layers.QuantConv2D(32, 3, kernel_quantizer="ste_sign", input_quantizer="ste_sign")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(3)(tf.keras.layers.GlobalAveragePooling2D()(x)), name="own")


def test_nothing_is_invented():
    said = metadata.read(convert(own())[0])
    assert set(said) == {"version", "network"}
    preparation = Preparation(size=(8, 8), channels=1, mean=[0.5], std=[0.25], range=(-1, 1), resize=9)
    said = metadata.read(convert(own(), preparation=preparation, classes=["größer", "b", "c"])[0])
    assert said["input"]["range"] == [-1, 1] and said["input"]["mean"] == [0.5] and said["classes"][0] == "größer"
    image = np.arange(81, dtype=np.uint8).reshape(9, 9, 1)
    expected = (image[0:8, 0:8] * 2 / 255 - 1 - 0.5) / 0.25
    np.testing.assert_allclose(Preparation.from_dict(said["input"])([image])[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"preparation: it is for images of \(8, 9, 1\), but own takes"):
        convert(own(), preparation=dataclasses.replace(preparation, size=(8, 9)))
    with pytest.raises(ValueError, match="classes: there are 2 names, but own gives"):
        convert(own(), classes=["a", "b"])


@pytest.mark.parametrize(
    "network",
    [
        lambda: shallow_resnet20(method="recu", width=4, num_classes=7),  # other classes than those of its data set
        lambda: shallow_resnet20(method="recu", width=4, input_shape=(12, 12, 1)),  # grey, so not from its data set
    ],
)
def test_classes_that_a_record_does_not_know(network):
    preparation, classes = known_images(network())
    assert classes is None and (preparation.mean is None) == (preparation.channels == 1)


def test_a_network_behind_a_scaling_layer_has_not_its_preparation():
    levels = tf.keras.layers.Rescaling(1 / 255)(tf.keras.Input((12, 12, 3)))
    assert known_images(shallow_resnet20(method="recu", width=4, input_tensor=levels))[0] is None


KL = tf.keras.layers


@pytest.mark.parametrize(
    "begin",
    [
        lambda x: KL.Rescaling(1 / 255)(x),
        lambda x: x / 255,
        lambda x: (x - 127.5) * (1 / 127.5),
        lambda x: tf.keras.Sequential([KL.RandomFlip(), KL.Rescaling(1 / 127.5, -1)])(x),
        lambda x: KL.Normalization(mean=[120.0], variance=[3600.0])(KL.ZeroPadding2D()(x)),
    ],
)
def test_first_layers_that_scale_levels_are_in_the_file(begin):
    """Conversion folds them away, so that nothing else in the file tells."""
    inputs = tf.keras.Input((8, 8, 1))
    y = KL.GlobalAveragePooling2D()(KL.Conv2D(3, 3)(begin(inputs)))
    said = metadata.read(convert(tf.keras.Model(inputs, y))[0])
    assert said["input"]["range"] == [0, 255] and "mean" not in said["input"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda x: KL.Rescaling(0.05)(KL.Conv2D(3, 1)(x)),  # no first layer
        lambda x: KL.Normalization(mean=[0.4], variance=[0.04])(x),
        lambda x: (x - 0.5) / 0.25,
        lambda x: x * 2 + x,
    ],
)
def test_other_first_layers_tell_nothing(begin):
    inputs = tf.keras.Input((8, 8, 1))
    y = KL.GlobalAveragePooling2D()(KL.Conv2D(3, 3)(begin(inputs)))
    assert "input" not in metadata.read(convert(tf.keras.Model(inputs, y))[0])


def test_numbers_of_numpy_and_names_of_two_lines():
    mean, std = np.array([0.5], np.float32), (np.float32(0.25),)
    preparation = Preparation(size=np.array([8, 8]), channels=1, mean=mean, std=std, resize=np.int64(9))
    content, _ = convert(own(), preparation=preparation, classes=np.array(["a", "b\nb", "c"]))
    said = metadata.read(content)
    assert said["input"]["mean"] == [0.5] and said["input"]["resize"] == 9 and said["input"]["size"] == [8, 8]
    assert said["classes"] == ["a", "b\nb", "c"] and Flatbuffer(content).files["labels.txt"] == b"a\nb b\nc\n"
    for classes in ("abc", [0, 1, 2]):
        with pytest.raises(ValueError, match="classes: expected a list of names"):
            convert(own(), classes=classes)


def test_a_map_of_scores_has_names_for_its_last_axis(tmp_path):
    inputs = tf.keras.Input((8, 8, 1))
    content, _ = convert(tf.keras.Model(inputs, KL.Conv2D(3, 3)(inputs)), classes=["a", "b", "c"])
    (tmp_path / "map.tflite").write_bytes(content)
    interpreter = larq_rep_runtime.Interpreter(str(tmp_path / "map.tflite"))
    assert larq_rep_runtime.preparation.class_names(interpreter) == ["a", "b", "c"]


def test_what_an_input_leaves_out():
    """As the runtime reads it: null is nothing, size and channels are those of the input."""
    assert metadata.preparation({"input": None}, (8, 8, 1)) is None
    for said in ({}, {"mean": None, "resize": None, "size": None}, {"resize": 8.0}):
        assert metadata.preparation({"input": said}, (8, 8, 1)) == Preparation(size=(8, 8), channels=1)


@pytest.mark.parametrize(
    "values, message",
    [
        ([], "expected at least size and channels"),
        ({"size": [8, 8]}, "expected at least size and channels"),
        ({**EXPECTED, "size": [32], "crop": [32]}, "size should be 2 numbers"),
        ({**EXPECTED, "size": [32, -1], "crop": [32, -1]}, "size should be positive"),
        ({**EXPECTED, "size": [32.5, 32.5], "crop": [32.5, 32.5]}, "two whole numbers"),
        ({**EXPECTED, "channels": 1}, "mean should be 1 number"),
        ({**EXPECTED, "channels": "3"}, "channels should be 1"),
        ({**EXPECTED, "channels": 4, "mean": None, "std": None}, "channels should be 1"),
        ({**EXPECTED, "mean": [0, 0, float("nan")]}, "mean should be 3 numbers"),
        ({**EXPECTED, "std": [0.2, 0.2, 0]}, "std should be positive"),
        ({**EXPECTED, "std": None}, "mean and std go together"),
        ({**EXPECTED, "resize": 31}, "at least 32 and at most 10000, found 31"),
        ({**EXPECTED, "range": [1, 1]}, "values of black and white"),
        ({**EXPECTED, "crop": [30, 30]}, "crop should be the size"),
    ],
)
def test_damaged_preparations(values, message):
    with pytest.raises(ValueError, match=message):
        Preparation.from_dict(values)


def field(table, number):
    """The position of a field of a flatbuffer's table, 0 if it is left out."""
    offset = table.Offset(4 + 2 * number)
    return offset and offset + table.Pos


def standard(content):
    """The standard metadata, read by the numbers of the fields in its schema."""
    model = schema.Model.GetRootAsModel(content, 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    (buffer,) = [model.Buffers(e.Buffer()).DataAsNumpy().tobytes() for e in entries if e.Name() == b"TFLITE_METADATA"]
    assert buffer[4:8] == b"M001"

    def table(position):
        return flatbuffers.table.Table(buffer, position)

    def sub(parent, number):
        return table(parent.Indirect(field(parent, number)))

    def items(parent, number):
        if not field(parent, number):
            return []
        start = parent.Vector(field(parent, number) - parent.Pos)
        return [
            table(parent.Indirect(start + 4 * i)) for i in range(parent.VectorLen(field(parent, number) - parent.Pos))
        ]

    def text(parent, number):
        return parent.String(field(parent, number)).decode()

    def floats(parent, number):
        start, count = (f(field(parent, number) - parent.Pos) for f in (parent.Vector, parent.VectorLen))
        return np.frombuffer(buffer, np.float32, count, start)

    root = table(int.from_bytes(buffer[:4], "little"))
    (subgraph,) = items(root, 3)
    (image,), (scores,) = items(subgraph, 2), items(subgraph, 3)
    found = {"name": text(root, 0), "parser": text(root, 7), "tensors": (text(image, 0), text(scores, 0))}
    if field(image, 3):
        content_ = sub(image, 3)
        properties = sub(content_, 1)
        size = sub(properties, 1)
        (unit,) = items(image, 4)
        found |= {
            "kinds": (buffer[field(content_, 0)], buffer[field(unit, 0)]),
            "colours": buffer[field(properties, 0)],
            "size": [int.from_bytes(buffer[field(size, i) :][:4], "little") for i in (1, 0)],
            "mean": floats(sub(unit, 1), 0),
            "std": floats(sub(unit, 1), 1),
        }
    if labels := items(scores, 6):
        found["labels"] = text(labels[0], 0), buffer[field(labels[0], 2)]
    return found


def test_the_standard_part(converted):
    model, content = converted
    found = standard(content)
    assert found["name"] == "ResNet20" and found["parser"] == "1.0.0"
    assert found["tensors"] == (model.input_names[0], model.output_names[0])
    assert found["kinds"] == (2, 1) and found["colours"] == 1 and found["size"] == [32, 32]
    # Of levels 0 to 255, as its schema wants them.
    np.testing.assert_allclose(found["mean"], 255 * np.array(EXPECTED["mean"]), rtol=1e-6)
    np.testing.assert_allclose(found["std"], 255 * np.array(EXPECTED["std"]), rtol=1e-6)
    assert found["labels"] == ("labels.txt", 2)
    assert_labelled(content, CIFAR10)
    # Grey, of another range.
    preparation = Preparation(size=(8, 8), channels=1, mean=[0.5], std=[0.25], range=(-1, 1))
    found = standard(convert(own(), preparation=preparation)[0])
    assert found["colours"] == 2 and "labels" not in found
    levels = np.arange(256)
    expected = (levels * 2 / 255 - 1 - 0.5) / 0.25
    np.testing.assert_allclose((levels - found["mean"]) / found["std"], expected, rtol=1e-4, atol=1e-5)
    assert "size" not in standard(convert(own())[0])


def test_the_standard_part_by_tflite_support(converted):
    """With the schema of `pip install --no-deps tflite-support`, whose requirements exclude TensorFlow's."""
    generated = pytest.importorskip("tensorflow_lite_support.metadata.metadata_schema_py_generated")
    _, content = converted
    entry = next(e for e in Flatbuffer(content).model.metadata if e.name == b"TFLITE_METADATA")
    buffer = bytes(bytearray(Flatbuffer(content).model.buffers[entry.buffer].data))
    assert generated.ModelMetadata.ModelMetadataBufferHasIdentifier(buffer, 0)
    model = generated.ModelMetadataT.InitFromObj(generated.ModelMetadata.GetRootAsModelMetadata(buffer, 0))
    (image,), (scores,) = model.subgraphMetadata[0].inputTensorMetadata, model.subgraphMetadata[0].outputTensorMetadata
    assert image.content.contentPropertiesType == generated.ContentProperties.ImageProperties
    assert image.content.contentProperties.colorSpace == generated.ColorSpaceType.RGB
    assert image.content.contentProperties.defaultSize.width == 32
    (unit,) = image.processUnits
    assert unit.optionsType == generated.ProcessUnitOptions.NormalizationOptions
    np.testing.assert_allclose(unit.options.mean, 255 * np.array(EXPECTED["mean"]), rtol=1e-6)
    assert scores.content.contentPropertiesType == generated.ContentProperties.FeatureProperties
    (labels,) = scores.associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", generated.AssociatedFileType.TENSOR_AXIS_LABELS)
    assert b"larq-rep" in model.description and model.minParserVersion == b"1.0.0"


def test_files_with_metadata_run_and_keep_them(converted):
    """On every engine; and all that rewrites a file keeps both parts and the archive, where its own offsets say."""
    model, content = converted
    bare = Flatbuffer(content)
    bare.model.metadata, bare.files = None, {}
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    for engine in (
        lambda file: lce.any_interpreter(file).interpreter.predict([image])[0],
        lambda file: larq_rep_runtime.Interpreter(file).predict(image),
    ):
        np.testing.assert_array_equal(engine(content), engine(bare.pack()))
    rewritten = [Flatbuffer(content).pack(), Flatbuffer(content).with_outputs(Flatbuffer(content).outputs)]
    rewritten.append(convert(model, float_weights="int8")[0])
    for other in rewritten:
        assert metadata.read(other) == metadata.read(content)
        np.testing.assert_array_equal(standard(other)["mean"], standard(content)["mean"])
        assert_labelled(other, CIFAR10)
    assert convert(model)[0] == content


def assert_labelled(content, names):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == names
        (entry,) = archive.infolist()
        assert entry.compress_type == zipfile.ZIP_STORED
        # Readers that do not correct offsets find it, too.
        assert content[entry.header_offset :][:4] == b"PK\x03\x04"


def test_folding_keeps_them():
    inputs = x = tf.keras.Input((8, 8, 32))
    for scale in (0.5, 2.0):
        x = x + lq.layers.QuantConv2D(32, 1, kernel_quantizer="ste_sign", input_quantizer="ste_sign")(x)
        x = x + tf.constant(scale * np.linspace(-1, 1, 32), tf.float32)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2)(tf.keras.layers.GlobalAveragePooling2D()(x)))
    content, _ = convert(model, fold=False, classes=["a", "b"])
    folded, report = fold(content)
    assert report.folded_away
    assert metadata.read(folded) == metadata.read(content) and metadata.read(folded)["classes"] == ["a", "b"]
    assert standard(folded) == standard(content)
    assert_labelled(folded, ["a", "b"])
