"""Weights for the networks of the zoo: files of Keras, checkpoints of the authors, and published ones by name."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import tensorflow as tf

from larq_rep.checks import require_model
from larq_rep.layers import Mirror
from larq_rep.zoo.checkpoint import check_reader, kinds
from larq_rep.zoo.checkpoint.tensors import LEGACY_MAGIC, naming
from larq_rep.zoo.families import load_state_dict
from larq_rep.zoo.mapping import ImportReport
from larq_rep.zoo.records import Published
from larq_rep.zoo.wrapped import read_weights

_KERAS = (".h5", ".hdf5", ".keras")
_LARGEST_CONFIG = 10**8


# Of networks in several families.
RBNN_WEIGHTS = Published("https://github.com/lmbxmu/RBNN")
RECU_WEIGHTS = Published("https://github.com/z-hXu/ReCU")


def cache_folder() -> Path:
    """The folder of published weights: `models/larq_rep` in Keras' folder, `~/.keras` or `$KERAS_HOME`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / "larq_rep"


def weights_file(network: str, weights: str | os.PathLike[str], published: Mapping[str, tuple[str, Published]]) -> Path:
    """The file that an argument `weights` names: by its own name, or by the name of published weights in the cache
    folder.

    # Arguments
        network: Name of the network, for messages.
        weights: The argument.
        published: The stem of the file and its source, by the name of published weights.

    # Raises
        TypeError: If `weights` is not a name.
        FileNotFoundError: If there is no such file, with the page of published weights and where to put them.
        ValueError: If the hash of published weights is not the expected one.
    """
    name = _path(network, weights)
    if name not in published:
        if not os.path.isfile(name):
            if os.path.isdir(name):
                raise FileNotFoundError(f"{network}: {name}: {kinds.folder(name)}.")
            if address := kinds.url(name):
                raise FileNotFoundError(f"{network}: {kinds.address(address)}")
            known = f", or {' or '.join(map(repr, published))}" if published else ""
            raise FileNotFoundError(
                f"{network}: there is no weights file {name!r}. Expected a file that Keras' `model.save_weights` or "
                f"`model.save` wrote, a PyTorch checkpoint of its authors{known}."
            )
        return Path(name)
    stem, (page, sha256) = published[name]
    file = cache_folder() / f"{stem}.pth.tar"
    if not file.is_file():
        raise FileNotFoundError(
            f"{network}: its authors offer the weights {name!r} behind a link that needs a browser. Open {page}, "
            f"download them and save them as {file} (or give the name of the file: weights='...')."
        )
    if sha256 is not None and (found := _sha256(file)) != sha256:
        raise ValueError(
            f"{network}: {file} is damaged or another file, and was not used: its SHA-256 is {found}, expected "
            f"{sha256}. Remove it and get it again from {page}."
        )
    return file


def _path(network: str, weights: str | os.PathLike[str]) -> str:
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"{network}: weights should be the name of a file, found {type(weights).__name__}.")
    return os.fspath(weights)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def is_checkpoint(file: str | os.PathLike[str]) -> bool:
    """Whether a file is not a Keras file, by its content or, where that is of neither, its suffix."""
    if Path(file).suffix.lower() not in _KERAS:
        return not h5py.is_hdf5(file)
    with open(file, "rb") as content:
        legacy = content.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return legacy


def is_mirrored(file: str | os.PathLike[str]) -> bool:
    """Whether the kernels in a file are for a network behind a `Mirror`, as after an import.

    # Raises
        ValueError: If it is a file of Keras that cannot be read.
    """
    return is_checkpoint(file) or "mirror" in _content(file)[0]


def _content(file: str | os.PathLike[str]) -> tuple[list[str], int | None]:
    """Names of the layers in a file of Keras, and the number of its weights if Keras would not compare it."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if (size := archive.getinfo("config.json").file_size) > _LARGEST_CONFIG:
                    raise ValueError(f"its config.json claims {size:,} bytes")
                layers = json.loads(archive.read("config.json"))["config"]["layers"]
                with archive.open("model.weights.h5") as member, h5py.File(member, "r") as content:
                    return [layer["config"]["name"] for layer in layers], _count(content)
        with h5py.File(file, "r") as content:
            if "layers" in content:  # .weights.h5
                return list(content["layers"]), _count(content)
            names = content.get("model_weights", content).attrs.get("layer_names", [])
            return [name.decode() if isinstance(name, bytes) else name for name in names], None
    # The errors that a damaged file leads to.
    except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{os.fspath(file)!r} cannot be read as a file of Keras: {error}. Save it again.") from error


def _count(content: h5py.File) -> int:
    found = []
    content.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return len(found)


def load_weights(
    model: tf.keras.Model,
    weights: str | os.PathLike[str],
    *,
    key: str | None = None,
    ignore: Sequence[str] = (),
    reader: str | None = None,
) -> ImportReport | None:
    """Loads weights from a file into a network of the zoo: all of them, or none and an error that lists what is wrong.

    # Arguments
        model: A network of the zoo. For a PyTorch checkpoint, or a file that was saved after the import of one, its
            first layer must be a `larq_rep.layers.Mirror` named `mirror`: the constructors take care of it if they
            get the file, `RepReActNetA(weights=file)`. Where several networks or phases of a training have the keys of
            a checkpoint, it is taken for one of this model; the constructors and `larq_rep.zoo.import_checkpoint` ask.
        weights: A file that Keras' `model.save_weights` or `model.save` wrote (`.h5`, `.keras`), or a checkpoint of
            the network's authors (`.pth`, `.pth.tar`, `.safetensors`, ...), in which nothing is executed.
        key: Name of the dictionary of the weights in a checkpoint, `a.b` for `b` in `a`, if it has several.
        ignore: Shell patterns of keys of a checkpoint to leave out.
        reader: Deprecated and without effect, see `larq_rep.zoo.checkpoint.read_state_dict`.

    # Returns
        What became of the keys of a checkpoint; `None` for a file of Keras.

    # Raises
        TypeError: If `model` is not a Keras model, or `weights` not the name of a file.
        FileNotFoundError: If there is no such file.
        ValueError: If the weights do not fit, or the file cannot be read; a `CheckpointError` for a checkpoint, with
            every key that is missing, left over or has another shape.
    """
    require_model("load_weights", model)
    check_reader("load_weights", reader)
    file = _path(model.name, weights)
    weights_file(model.name, file, {})
    mirrors = any(isinstance(layer, Mirror) for layer in model.layers)
    if is_mirrored(file) != mirrors:
        raise ValueError(
            f"{model.name}: the kernels in {file} are {'' if not mirrors else 'not '}mirrored, as for a network that "
            f"begins with a Mirror layer, but this one {'does' if mirrors else 'does not'}. Give the file to the "
            "constructor, which builds the one that fits: weights=..."
        )
    if is_checkpoint(file):
        contents = read_weights(file, key=key, ignore=ignore)
        with naming(file):
            report = load_state_dict(model, contents.arrays, contents.ignored)
        report.notes = contents.notes
        return report
    advice = (
        f"{model.name}: the weights in {file!r} do not fit the network. The file must come from the same constructor "
        "with the same arguments (beta, num_classes, include_top, ...): "
    )
    if zipfile.is_zipfile(file) and not file.endswith(".keras"):
        raise ValueError(f"{model.name}: {file!r} is a .keras file by another name. Rename it.")
    # In its newer formats Keras loads what it finds and leaves the rest.
    count = _content(file)[1]
    if count not in (None, len(model.weights)):
        raise ValueError(f"{advice}it has {count} weights, the network {len(model.weights)}.")
    before = model.get_weights()
    try:
        model.load_weights(file)
    except (ValueError, KeyError, OSError) as error:
        model.set_weights(before)
        raise ValueError(f"{advice}{error}") from error
    return None
