"""Loads a Keras model from a file or folder."""

from __future__ import annotations

import inspect
import io
import json
import re
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import larq as lq
import numpy as np
import tensorflow as tf

import larq_rep.layers  # noqa: F401  (files may hold its layers)
from larq_rep._keras import has_graph
from larq_rep.checks import did_you_mean
from larq_rep.converters.inputs import Inputs, in_order
from larq_rep.record import recorded

# Larq registers its layers and quantizers by name, but not these.
_OF_LARQ = {name: getattr(lq.activations, name) for name in ("hard_tanh", "leaky_tanh")}
_SIGNATURES = ("serving_default", "serve")
_EXPECTED = (
    "Expected a .h5 or .keras file, a SavedModel folder, a run of lqr train or the name of a network of the zoo."
)
_SAVED_MODEL = (
    "Save the model as a SavedModel folder, model.save('folder'), which holds what its layers compute and needs no "
    "classes; only a quantizer of several bits does, for its convolution to be bitpacked. Or register them in Python "
    "(larq.utils.register_keras_custom_object), which a command cannot do, and call larq_rep.converters.convert there."
)
_OTHER_FORMATS = {
    ".tflite": "It is converted already: `lce inspect` and `lce fold` take such files.",
    ".pth": "`lce import` reads the authors' checkpoints of PyTorch.",
    ".pt": "`lce import` reads the authors' checkpoints of PyTorch.",
    ".ckpt": "A checkpoint of TensorFlow holds weights only: build the network, load_weights, and save the model.",
    ".pb": "Give the folder that it lies in, with its folder `variables`.",
}


class LoadingError(ValueError):
    """A file or folder that cannot be loaded as a model: which one, why, and what to do."""


class SavedFunction(tf.keras.layers.Layer):
    """A signature of a SavedModel that was not saved by Keras, as a layer.

    # Arguments
        signature: A concrete function of named tensors.
        keeper: The loaded object, which owns the variables.
    """

    def __init__(self, signature: Any, keeper: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.signature, self.keeper = signature, keeper

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.signature(**inputs)


def load(source: tf.keras.Model | str | Path, example: Inputs | None = None) -> tf.keras.Model:
    """The model of a file (`.h5`, `.keras`), of a SavedModel folder, of the folder of a run (the weights of its best
    epoch), or of a name of the zoo; a model is returned as it is.

    A string that is a name of the zoo means that network even if a file has the same name; its initial values are those
    after `tf.keras.utils.set_random_seed(0)`, so that `verify` builds what `convert` did.

    A SavedModel need not come from Keras: one with a signature (`model.export`, `tf.saved_model.save`) becomes a
    model with the names of that signature. A model that was subclassed, and called or saved, gets the inputs that it
    was called with, or those of `example`.

    # Arguments
        source: The model, or where it is.
        example: An input as the model takes it, one array, a list or a dictionary. Its shape without the batch takes
            the place of free sizes; its values do not matter.

    # Raises
        LoadingError: If it cannot be loaded, or `example` does not fit it.
    """
    model = _read(source) if isinstance(source, str | Path) else source
    if not isinstance(model, tf.keras.Model):
        return model
    return _with_inputs(model) if example is None else _shaped(model, example)


def is_open(model: tf.keras.Model) -> bool:
    """Whether a model has no inputs yet, or inputs of free sizes."""
    inputs = getattr(model, "inputs", None)
    return inputs is None or any(None in x.shape[1:] for x in tf.nest.flatten(inputs))


def _read(source: str | Path) -> tf.keras.Model:
    path = Path(source)
    if isinstance(source, str) and source.isidentifier():
        from larq_rep import zoo

        if source in zoo.list_models():
            tf.keras.utils.set_random_seed(0)
            return zoo.get_model(source)
        if not path.exists():
            hint = did_you_mean(source, zoo.list_models()) or "`lce zoo list` names all networks."
            raise LoadingError(f"There is neither a network nor a file named {source!r}. {hint}")
    if not path.exists():
        raise LoadingError(f"There is no file or folder {source}.")
    if (path / "config.json").is_file():
        from larq_rep.zoo import runs

        try:
            return runs.load(path)
        except (ValueError, OSError, ImportError) as error:
            raise LoadingError(f"{path} is the folder of a run, but its network cannot be loaded: {error}") from error
    # Keras leaves its own frames out of tracebacks: they name the layer that cannot be built.
    filtering = tf.debugging.is_traceback_filtering_enabled()
    tf.debugging.disable_traceback_filtering()
    try:
        _check_format(path)
        with tf.keras.utils.custom_object_scope(_OF_LARQ):
            if path.is_dir() and not (path / "keras_metadata.pb").is_file():
                return _of_signature(path)
            model = _of_hdf5(path) if h5py.is_hdf5(path) else tf.keras.models.load_model(path, compile=False)
        return _with_inputs(model) if isinstance(model, tf.keras.Model) else _of_signature(path)
    except LoadingError:
        raise
    # The errors that Keras raises for a file that it cannot read have no common class.
    except Exception as error:
        raise LoadingError(f"{path} cannot be loaded: {explain(error, path)}") from error
    finally:
        if filtering:
            tf.debugging.enable_traceback_filtering()


def explain(error: Exception, path: Path) -> str:
    """Why Keras could not load a file, and what to do, with a remedy for each cause."""
    text = str(error)
    # Keras prints the whole configuration of a layer before it comes to the point.
    cause = text.split("Exception encountered: ")[-1].split("Please ensure ")[0].strip().splitlines()
    short = cause[0][:300].rstrip(".") if cause else type(error).__name__
    found = re.search(r"Error when deserializing class '(\w+)' using config=\{'name': '([^']+)'", text)
    layer = (found[2], found[1]) if found else _failing_layer(error)
    where = f"layer {layer[0]} ({layer[1]}): " if layer else ""
    if "Lambda layer" in text or "bad marshal data" in text:
        return (
            "it has a Lambda layer, whose code Keras does not run from a file unasked, or another version of Python "
            "wrote it. Write it as a layer class and save the model as a SavedModel folder, or, if you trust the file, "
            "load it in Python with tf.keras.models.load_model(file, safe_mode=False) and give the model to "
            "larq_rep.converters.convert."
        )
    if unknown := _unknown_name(text) or ("'str' object is not callable" in text and _unregistered(path)):
        return f"{where}the file does not hold the code of {unknown}. {_SAVED_MODEL}"
    if isinstance(error, NameError):
        return (
            f"{where}{short}: the code of a Lambda layer uses a name that it finds only in its own module. "
            "Write it as a layer class that imports what it uses. " + _SAVED_MODEL
        )
    if (
        "unexpected keyword argument" in text
        or "required positional argument" in text
        or "Unrecognized keyword" in text
    ):
        return (
            f"{where}{short}. The arguments in the file are not those that the class takes: get_config has to give "
            "every argument of __init__, and the versions of tf-keras and larq must be those that the model was "
            "saved with."
        )
    if re.search(
        r"Layer count mismatch|expected \d+ (variables|weights|layers)|[Ss]hape mismatch|incompatible shape", text
    ):
        return f"{short}. Its weights do not fit its layers: save the whole model again, with model.save."
    if re.search(r"not registered|Op type", text):
        return (
            f"{short}. It uses an operator from its author's own library, which TFLite would not have either: "
            "express it in TensorFlow's own operators."
        )
    if re.search(
        r"variables\.(index|data)|Could not find checkpoint|No such file|Unsuccessful TensorSliceReader", text
    ):
        return f"{short}. Files of it are missing: copy the whole folder, `variables` and `assets` included."
    if isinstance(error, OSError | zipfile.BadZipFile | EOFError | KeyError | json.JSONDecodeError) or re.search(
        r"truncated|[Dd]ata ?[Ll]oss|corrupt|parse|h5py|HDF5", text
    ):
        return f"{short}. The file is damaged or incomplete: copy it again, or save the model again."
    return (
        f"{where}{short}. Its layers cannot be built with the arguments in the file: correct them where the model is "
        "built, and save it again."
    )


def _failing_layer(error: Exception) -> tuple[str, str] | None:
    """Name and class of the innermost layer at work when an error was raised."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        this = frame.f_locals.get("self")
        if isinstance(this, tf.keras.layers.Layer) and not isinstance(this, tf.keras.Model):
            found = getattr(this, "name", "?"), type(this).__name__
    return found


def _unknown_name(text: str) -> str:
    """The class or function that a file names but nobody has registered; empty if that is not the cause."""
    for pattern in (
        r"Unknown activation function '\{.*'class_name': 'function', 'config': '(\w+)'",
        r"Unknown [\w ]+: ?'?\"?(\w+)",
        r"Cannot deserialize object of type `(\w+)`",
        r"Could not locate (?:class|function) '(\w+)'",
        r"Unable to restore custom object of (?:type|class) \"?(\w+)",
    ):
        if found := re.search(pattern, text, re.DOTALL):
            return found[1]
    return ""


def _unregistered(path: Path) -> str:
    """The first class of a .keras file that nobody has registered. Keras may take its name for a layer."""
    with zipfile.ZipFile(path) as archive:
        stack = [json.loads(archive.read("config.json"))]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            name, module = part.get("registered_name"), str(part.get("module"))
            if (
                name
                and module.split(".")[0] not in ("keras", "tf_keras")
                and not tf.keras.utils.get_registered_object(name)
            ):
                return part["class_name"]
            stack += reversed(part.values())
        elif isinstance(part, list):
            stack += reversed(part)
    return ""


def _of_hdf5(path: Path) -> tf.keras.Model:
    """The model of a .h5 file, with its functions stored by name, as Keras once wrote them and can read them."""
    with h5py.File(path, "r") as file:
        config = file.attrs["model_config"]
    text = config if isinstance(config, str) else config.decode()
    named = json.dumps(_by_name(json.loads(text)))
    if named == json.dumps(json.loads(text)):
        return tf.keras.models.load_model(path, compile=False)
    with h5py.File(io.BytesIO(path.read_bytes()), "r+") as file:
        file.attrs["model_config"] = named
        return tf.keras.models.load_model(file, compile=False)


def _by_name(config: Any) -> Any:
    if isinstance(config, list):
        return [_by_name(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function" and isinstance(config.get("config"), str):
        registered = config.get("registered_name")
        return config["config"] if registered in (None, "function") else registered
    return {key: _by_name(value) for key, value in config.items()}


def _with_inputs(model: tf.keras.Model) -> tf.keras.Model:
    """A subclassed model with `Input` layers, if it knows what it was called with."""
    spec = None if getattr(model, "inputs", None) is not None else model.save_spec()
    if spec is None:
        return model
    arguments: dict[Any, Any] = dict(enumerate(spec[0])) | spec[1]
    names, known = dict.fromkeys(arguments), _parameters(model)
    if len(_tensors(arguments)) > 1 and len(known) >= len(spec[0]):  # That of a SavedModel may not know them.
        names |= dict(zip(spec[1], spec[1], strict=True)) | dict(enumerate(known[: len(spec[0])]))
    given = {
        key: _input(value, names[key])
        if _is_tensor(value)
        else tf.nest.map_structure(lambda x: _input(x) if _is_tensor(x) else x, value)
        for key, value in arguments.items()
    }
    outputs = model(*(given[key] for key in range(len(spec[0]))), **{key: given[key] for key in spec[1]})
    inputs = [given[key] for key in _tensors(arguments)]
    return tf.keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=model.name)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, tf.TensorSpec)


def _tensors(arguments: dict[Any, Any]) -> list[Any]:
    """The names or positions of the arguments that are tensors, or structures of tensors."""
    return [key for key, value in arguments.items() if any(map(_is_tensor, tf.nest.flatten(value)))]


def _parameters(model: tf.keras.Model) -> list[str]:
    """The names of the positional arguments that `call` needs."""
    call = getattr(model.call, "python_function", model.call)
    return [
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        and name != "self"
    ]


def _shaped(model: tf.keras.Model, example: Inputs) -> tf.keras.Model:
    """The model with inputs of the shapes of an example."""
    names: list[str] = []
    if getattr(model, "inputs", None) is None:
        names = _parameters(model)
        if len(names) > 1 and isinstance(example, Mapping) and set(example) == set(names):
            example = [example[name] for name in names]
        if len(names) > 1 and isinstance(example, Sequence) and len(example) == len(names):
            inputs = [_input_like(array, name) for array, name in zip(example, names, strict=True)]
        else:
            inputs, names = tf.nest.map_structure(_input_like, example), []
    else:
        given = []
        for name, x, array in zip(model.input_names, model.inputs, in_order(example, model), strict=True):
            if not x.shape[1:].is_compatible_with(np.shape(array)[1:]):
                raise LoadingError(
                    f"example: {model.name} takes {tuple(x.shape)} as {name}, found {np.shape(array)}. Only free sizes "
                    "(None) can be chosen; for others build the model anew."
                )
            given.append(tf.keras.Input(np.shape(array)[1:], x.shape[0], dtype=x.dtype, name=name))
        if not is_open(model):
            return model
        inputs = tf.nest.pack_sequence_as(model.input, given)
    try:
        if names:
            outputs = model(*inputs)
        else:
            # A model of layers only calls these, so that they keep their names.
            outputs = (model.call if has_graph(model) else model)(inputs)
    # The code of a layer may raise anything.
    except Exception as error:
        # Keras adds lines around the cause.
        cause = str(error).partition("\n\nCall arguments")[0].strip().splitlines() or [type(error).__name__]
        raise LoadingError(
            f"example: {model.name} cannot be called with it: {cause[-1].strip()[:300].rstrip('.')}. Give an input as "
            "it takes it, with a batch in front, of sizes that all its layers fit; for a call of several arguments a "
            "list, or a dictionary by their names."
        ) from error
    return recorded(tf.keras.Model(inputs, outputs, name=model.name), getattr(model, "record", None))


def _input_like(array: Any, name: str | None = None) -> tf.Tensor:
    """An input of the shape of an array; a real one is float32, as Keras takes it."""
    array = np.asarray(array)
    return tf.keras.Input(array.shape[1:], dtype="float32" if array.dtype.kind == "f" else array.dtype, name=name)


def _of_signature(path: Path) -> tf.keras.Model:
    """The model that a signature of a SavedModel computes."""
    loaded = tf.saved_model.load(str(path))
    signature = next((loaded.signatures[name] for name in _SIGNATURES if name in loaded.signatures), None)
    if signature is None and len(loaded.signatures) == 1:
        (signature,) = loaded.signatures.values()
    if signature is None:
        raise LoadingError(
            f"{path} is a SavedModel that is not a Keras model and has no signature {' or '.join(_SIGNATURES)} (it has "
            f"{', '.join(loaded.signatures) or 'none'}). Save the model with model.save of tf_keras, or give "
            "tf.saved_model.save the function that it is, signatures=function.get_concrete_function(...)."
        )
    inputs = {name: _input(spec, name) for name, spec in signature.structured_input_signature[1].items()}
    return tf.keras.Model(inputs, SavedFunction(signature, loaded, name="function")(inputs), name=path.name)


def _input(spec: tf.TensorSpec, name: str | None = None) -> tf.Tensor:
    batch, *shape = spec.shape
    return tf.keras.Input(shape, batch, dtype=spec.dtype, name=name or spec.name)


def _check_format(path: Path) -> None:
    """Explains why a file is not a model, which Keras explains badly."""
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise LoadingError(f"{path} is not a SavedModel: there is no saved_model.pb in it. {_EXPECTED}")
        return
    version = ""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if "model_config" not in file.attrs:
                raise LoadingError(
                    f"{path} holds no model, only weights or other data. For weights give the name of their "
                    f"network and --weights {path}, with the options that the network was built with."
                )
            version = str(file.attrs.get("keras_version", ""))
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" not in archive.namelist():
                raise LoadingError(f"{path} is not a Keras file: there is no metadata.json in it. {_EXPECTED}")
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    else:
        about = _OTHER_FORMATS.get(path.suffix, _EXPECTED)
        if path.suffix in (".h5", ".hdf5", ".keras"):
            about = "It is damaged, incomplete or something else: copy it again, or save the model again."
        raise LoadingError(f"{path} is not a Keras file. {about}")
    if version.startswith("3."):
        raise LoadingError(
            f"{path} was written by Keras {version}. Larq needs Keras 2: save the model with tf_keras (what "
            "tf.keras is after `import larq_rep`)."
        )
