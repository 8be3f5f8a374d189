"""Files and folders as models: what can be loaded converts right, what cannot is told with its own remedy."""

import shutil
import zipfile

import h5py
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import one_padded, randomize

from larq_rep.converters import convert, verify
from larq_rep.converters.lce import interpreter
from larq_rep.converters.loading import LoadingError, load

keras = tf.keras.layers


# None of these is registered, so whoever loads a file of theirs does not know them.


class Block(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.norm, self.dropout = one_padded(), keras.BatchNormalization(), keras.Dropout(0.5)

    def call(self, x, training=None):
        y = self.norm(self.conv(x), training=training)
        return x + self.dropout(y, training=training)


class Outer(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(name="one"), Block(name="two")]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Phase(keras.Layer):
    """Asks Keras whether it is training, in both ways that there are."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = one_padded()

    def call(self, x, training=None):
        y = tf.keras.backend.in_train_phase(lambda: -self.conv(x), lambda: self.conv(x), training=training)
        phase = tf.cast(tf.keras.backend.learning_phase() if training is None else training, tf.bool)
        return tf.cond(phase, lambda: y + tf.random.normal(tf.shape(y)), lambda: y)


class OfModel(keras.Layer):
    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, x):
        return self.model(x) - x


class Two(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = one_padded()

    def call(self, inputs):
        a, b = inputs
        return {"sum": self.conv(a) + b, "difference": self.conv(b) - a}


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.pool, self.dense = Block(), keras.GlobalAveragePooling2D(), keras.Dense(3)

    def call(self, x, training=None):
        return {"logits": self.dense(self.pool(self.block(x, training=training))), "map": self.block(x)}


def image(name=None):
    return tf.keras.Input((6, 6, 32), name=name)


def chain(*layers):
    x = i = image()
    for layer in layers:
        x = layer(x)
    return tf.keras.Model(i, x)


def shared():
    block = Block()
    return chain(block, keras.ReLU(), block)


def two_inputs():
    a, b = image("a"), image("b")
    return tf.keras.Model([a, b], Two()([a, b]))


MODELS = {  # and how many binary convolutions there are
    "block": (lambda: chain(Block(), Block()), 2),
    "blocks in a layer": (lambda: chain(Outer()), 2),
    "phase": (lambda: chain(Phase()), 1),
    "model in a layer": (lambda: chain(OfModel(chain(Block(), keras.ReLU()))), 1),
    "nested models": (lambda: chain(chain(Block(), keras.ReLU()), Block()), 2),
    "shared": (shared, 2),
    "sequential": (lambda: tf.keras.Sequential([image(), Block(), keras.Flatten(), keras.Dense(2)]), 1),
    "two inputs": (two_inputs, 2),
    "subclassed": (Subclassed, 2),
}
UNKNOWN = {"blocks in a layer": "Outer, Block:", "phase": "Phase:", "model in a layer": "OfModel, Block:"}
UNKNOWN |= {"two inputs": "Two:", "subclassed": "Subclassed, Block:"}
WAYS = {
    "save": lambda model, path: model.save(path),
    "export": lambda model, path: model.export(path),
    "tf.saved_model": lambda model, path: tf.saved_model.save(model, path),
}


def saved(name, way, path, capsys):
    """Saves a model with random weights; returns inputs and its outputs for them."""
    model = MODELS[name][0]()
    count = 2 if name == "two inputs" else 1
    x = list(np.random.default_rng(0).standard_normal((count, 1, 6, 6, 32)).astype(np.float32))
    model(x if count > 1 else x[0])
    rng = np.random.default_rng(1)
    for layer in model.submodules:
        if isinstance(layer, keras.BatchNormalization):
            randomize(tf.keras.Sequential([layer]), 1)
        elif isinstance(layer, keras.Conv2D | keras.Dense):
            layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    expected = model.predict(x if count > 1 else x[0], verbose=0)
    WAYS[way](model, str(path))
    capsys.readouterr()
    return x, expected


@pytest.mark.parametrize(
    "name, way", [*((name, "save") for name in MODELS), ("block", "export"), ("shared", "tf.saved_model")]
)
def test_layers_of_unknown_classes(name, way, tmp_path, capsys):
    """The file of a SavedModel computes what the model did that was saved."""
    x, expected = saved(name, way, tmp_path / "saved", capsys)
    content, report = convert(tmp_path / "saved")
    assert (report.bitpacked, report.binary) == (MODELS[name][1],) * 2
    (finding,) = report.findings
    assert (finding.rule, finding.error) == ("graph-only", False)
    assert finding.message.startswith(UNKNOWN.get(name, "Block:") if way == "save" else "its signature:")
    values = tf.nest.flatten(expected)
    for found, y in zip(interpreter(content).interpreter.predict(x), values, strict=True):
        np.testing.assert_allclose(found, y, rtol=4e-6, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["export", "tf.saved_model"])
@pytest.mark.parametrize("name", MODELS)
def test_signatures_of_every_model(name, way, tmp_path, capsys):
    """Names, which a signature sorts, say which output is which."""
    x, expected = saved(name, way, tmp_path / "saved", capsys)
    content, report = convert(str(tmp_path / "saved"))
    assert (report.bitpacked, report.binary) == (MODELS[name][1],) * 2
    values = tf.nest.flatten(expected)
    for found, y in zip(interpreter(content).interpreter.predict(x), values, strict=True):
        np.testing.assert_allclose(found, y, rtol=4e-6, atol=2e-4)


def test_verify_proves_what_was_loaded(tmp_path, capsys):
    x, _ = saved("blocks in a layer", "save", tmp_path / "saved", capsys)
    content, _ = convert(tmp_path / "saved")
    result = verify(load(tmp_path / "saved"), content, x[0])
    assert result.ok and result.convolutions == 2 and result.activations == 2 * 6 * 6 * 32
    assert verify(tmp_path / "saved", content, x[0], runtime="lce").ok
    assert verify(str(tmp_path / "saved"), content, x[0], runtime="lce").ok
    with pytest.raises(LoadingError, match="There is no file or folder"):
        verify(tmp_path / "nothing", content, x[0])


def test_subclassed_model_in_memory():
    model = Subclassed()
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 32)).astype(np.float32)
    expected = model(x)
    found = interpreter(convert(model)[0]).predict(x)
    for y, name in zip(found, ("logits", "map"), strict=True):
        np.testing.assert_allclose(y, expected[name], rtol=4e-6, atol=2e-4)


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
@pytest.mark.parametrize("activation", ["hard_tanh", "leaky_tanh"])
def test_activations_of_larq(activation, suffix, tmp_path):
    """Keras writes functions to .h5 files in a way that it does not read."""
    function = getattr(lq.activations, activation)
    i = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(i, keras.Activation(function)(keras.Conv2D(2, 1, activation=function)(i)))
    model.save(tmp_path / f"m{suffix}")
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 3)).astype(np.float32) * 3
    found = interpreter(convert(tmp_path / f"m{suffix}")[0]).predict(x)
    np.testing.assert_allclose(found, model(x), atol=1e-5)


class Plus(keras.Layer):
    def __init__(self, n=1, **kwargs):
        super().__init__(**kwargs)
        self.n = n

    def call(self, x):
        return x + self.n


def double(x):
    return 2 * x


def save(path, layer, edit=None):
    i = tf.keras.Input((4, 4, 3))
    tf.keras.Model(i, layer(i)).save(path)
    if edit:
        with h5py.File(path, "r+") as file:
            config = file.attrs["model_config"]
            file.attrs["model_config"] = edit(config if isinstance(config, str) else config.decode())
    return path


def cut(path, layer):
    content = save(path, layer).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def without_variables(path):
    save(path, keras.Conv2D(2, 1))
    shutil.rmtree(path / "variables")
    return path


def module(path):
    class Module(tf.Module):
        @tf.function
        def two(self, x):
            return x + 1

    tf.saved_model.save(Module(), str(path))
    return path


def written(path, content):
    path.write_bytes(content)
    return path


REGISTER = "register_keras_custom_object"
# What makes the file, and words of the message: the cause, and its own remedy.
REFUSED = {
    "layer.h5": (lambda p: save(p, Plus()), ["the code of Plus", REGISTER, "SavedModel"]),
    "layer.keras": (lambda p: save(p, Plus()), ["the code of Plus", REGISTER]),
    "function.h5": (lambda p: save(p, keras.Activation(double, name="own")), ["layer own", "the code of double"]),
    "function.keras": (lambda p: save(p, keras.Activation(double, name="own")), ["layer own", "the code of double"]),
    "lambda.keras": (lambda p: save(p, keras.Lambda(lambda x: x * 2)), ["Lambda layer", "safe_mode=False"]),
    "axis.h5": (
        lambda p: save(p, keras.BatchNormalization(name="norm"), lambda c: c.replace('"axis": [3]', '"axis": [5]')),
        ["layer norm (BatchNormalization)", "axis", "correct them where the model is built"],
    ),
    "argument.h5": (
        lambda p: save(p, keras.Conv2D(2, 1, name="own"), lambda c: c.replace('"filters"', '"philters"')),
        ["layer own (Conv2D)", "missing 1 required positional argument: 'filters'", "get_config"],
    ),
    "cut.h5": (lambda p: cut(p, keras.Conv2D(2, 1)), ["damaged or incomplete"]),
    "cut.keras": (lambda p: cut(p, keras.Conv2D(2, 1)), ["damaged, incomplete"]),
    "no variables": (without_variables, ["variables", "copy the whole folder"]),
    "no signature": (module, ["no signature", "signatures="]),
    "a.tflite": (lambda p: written(p, b"\0\0\0\0TFL3"), ["converted already"]),
    "a.pth": (lambda p: written(p, b"\x80\x02"), ["lce import"]),
    "saved_model.pb": (lambda p: written(p, b"\x08\x01"), ["the folder that it lies in"]),
    "text.txt": (lambda p: written(p, b"Hello."), ["not a Keras file", "Expected a .h5 or .keras file"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_cause_has_its_remedy(name, tmp_path):
    make, words = REFUSED[name]
    path = make(tmp_path / name)
    with pytest.raises(LoadingError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "Traceback" not in message and len(message) < 900
    for word in words:
        assert word in message
    assert (REGISTER in message) == any("the code of" in word for word in words)


def test_layers_that_are_registered_load(tmp_path):
    """In Python nothing but their names is needed."""
    path = save(tmp_path / "m.h5", Plus())
    with tf.keras.utils.custom_object_scope({"Plus": Plus}):
        content, _ = convert(path)
    x = np.zeros((1, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(interpreter(content).predict(x), x + 1)


def test_what_is_no_model():
    with pytest.raises(LoadingError, match="There is no file or folder model.h5"):
        convert("model.h5")
    with pytest.raises(LoadingError, match="neither a network nor a file named 'ResNet21'. Did you mean ResNet20"):
        convert("ResNet21")
    with pytest.raises(TypeError, match="found list"):
        convert([1])


def test_keras_file_of_another_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(LoadingError, match="no metadata.json"):
        load(tmp_path / "m.keras")
