"""The images whose values give the ranges of 8-bit integers, and what is said of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from larq_rep_cli import preparing, runs, tables, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.int8 import Quantization
    from larq_rep.images import Preparation
    from larq_rep.training.datasets import Source as Dataset

_COUNT = 100
_WHICH = "--calibrate FOLDER (with images), digits or random"


class Calibration(NamedTuple):
    """The values of `options.calibration_options`."""

    calibrate: str | None
    calibration_images: int | None
    calibration: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: int | None

    def check_unused(self) -> None:
        """Refuses options that have no meaning without 8-bit integers."""
        given = [f"--{name.replace('_', '-')}" for name, value in self._asdict().items() if value is not None]
        if given:
            raise click.UsageError(f"--int8 is missing, which takes {' and '.join(given)}.")

    @property
    def method(self) -> str:
        """How ranges are chosen, as an argument of the library."""
        return self.calibration or "mse"


def of_model(
    calibration: Calibration, name: str, model: tf.keras.Model, seed: int
) -> tuple[list[np.ndarray], Preparation | None]:
    """Arrays as a model takes them, and how they are prepared, which the file should say, if they are real images.

    # Raises
        ConversionError: If the model has no inputs of a fixed size.
        InputError, click.UsageError: As `_arrays`.
    """
    import numpy as np

    from larq_rep.converters import ConversionError, classifier
    from larq_rep.converters.audit import audit_model
    from larq_rep.converters.inputs import random_array

    if findings := audit_model(model):
        raise ConversionError(findings)
    inputs = [(tuple(x.shape), np.dtype(x.dtype.as_numpy_dtype)) for x in model.inputs]
    config = preparing.run_config(name)
    levels = classifier.takes_levels(model)
    source = preparing.Source(name, _image(inputs[0][0]), config=config, model=model, takes_levels=levels)

    def noise(count: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [random_array((_whole(count, x[0]), *x[1:]), dtype, rng) for x, dtype in inputs]

    return _arrays(calibration, source, inputs, noise, seed)


def of_file(calibration: Calibration, name: str, content: bytes) -> tuple[list[np.ndarray], Preparation | None]:
    """Arrays as a .tflite file takes them, but not mirrored, and how they are prepared, as for `of_model`.

    # Raises
        InvalidFlatbufferError: If it is no TFLite file.
        InputError, click.UsageError: As `_arrays`.
    """
    import numpy as np

    from larq_rep.converters import classifier, metadata
    from larq_rep.converters.flatbuffer import Flatbuffer
    from larq_rep.converters.inputs import random_inputs

    flatbuffer, about = Flatbuffer(content), metadata.read(content)
    inputs = [(flatbuffer.shape(tensor), np.dtype(flatbuffer.dtype(tensor))) for tensor in flatbuffer.inputs]
    levels = classifier.scales_levels(flatbuffer)
    source = preparing.Source(name, _image(inputs[0][0]), about=about, takes_levels=levels)

    def noise(count: int) -> list[np.ndarray]:
        return random_inputs(flatbuffer, max(count // (inputs[0][0] or (1,))[0], 1))

    return _arrays(calibration, source, inputs, noise)


def _arrays(
    calibration: Calibration,
    source: preparing.Source,
    inputs: Sequence[tuple[tuple[int, ...], np.dtype]],
    noise: Callable[[int], list[np.ndarray]],
    seed: int = 0,
) -> tuple[list[np.ndarray], Preparation | None]:
    """Whole batches for each input, and how they are prepared if a file can say it.

    # Raises
        InputError: If the images cannot be read or do not fit the network.
        click.UsageError: If it is not said which images to take.
    """
    given, count = calibration.calibrate, calibration.calibration_images or _COUNT
    if given is None and source.config is None:
        raise click.UsageError(f"Which images show what values {source.name} meets? Give {_WHICH}.")
    if given == "random":
        terminal.note("Noise says little of the ranges of real inputs: for a file to use, give images.")
    if len(inputs) != 1 or len(inputs[0][0]) != 4 or inputs[0][0][3] not in (1, 3):
        if given == "random":
            return noise(count), None
        takes = " and ".join(f"{dtype.name} {shape}" for shape, dtype in inputs)
        raise InputError(
            f"{source.name} takes {takes}: images need one input, (batch, height, width, 1 or 3). Give --calibrate "
            "random, or arrays in Python: larq_rep.converters.convert(model, int8=arrays)."
        )
    import numpy as np

    from larq_rep.images import Preparation

    [((batch, *_), dtype)] = inputs
    if dtype.kind in "iu":
        source = source._replace(range=(0.0, 255.0))
    changes = preparing.Changes(calibration.mean, calibration.std, calibration.resize)
    prepare, basis = preparing.preparation(source, changes)
    with refusing(ValueError, NotADirectoryError, FileNotFoundError, ImportError, prefix="--calibrate: "):
        pixels, of = _pixels(given, count, prepare, source, seed)
        with runs.explained():
            images = np.concatenate([prepare([image]) for image in terminal.track(pixels, "reading images", count)])
    if len(images) < count:
        terminal.note(f"There are only {len(images)} images, not {count}: all are used.")
    terminal.note(f"Calibration with {len(images)} images, {of}, {basis}: {prepare.text}.")
    whole = images[np.arange(_whole(len(images), batch)) % len(images)]
    arrays = [(whole.round() if dtype.kind in "iu" else whole).astype(dtype)]
    return arrays, None if given == "random" or type(prepare) is not Preparation else prepare


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return cast("tuple[int, int, int]", shape[1:])


def _whole(count: int, batch: int | None) -> int:
    """The count as whole batches, one at least."""
    return max(count // (batch or 1), 1) * (batch or 1)


def _pixels(
    given: str | None, count: int, prepare: Preparation, source: preparing.Source, seed: int
) -> tuple[Iterable[Any], str]:
    """At most `count` images of levels 0 to 255, and what they are called."""
    import numpy as np

    from larq_rep import data
    from larq_rep.images import MODES, open_upright
    from larq_rep.training import datasets

    channels = prepare.channels
    if given == "random":
        shape = (count, *prepare.covered, channels)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8), "noise"
    if given == "digits" and channels != 1:
        raise InputError(
            f"--calibrate digits: they are grey, but {source.name} takes {channels} channels. Give a folder of images."
        )
    if given == "digits":
        return _of_dataset(datasets.load(given), count, seed), "the training digits"
    if given is None and source.config is not None:
        known = datasets.load(source.config.data, source.config.data_dir, channels)
        return _of_dataset(known, count, seed), f"the training images of {source.name}"
    files, _ = data.image_files(str(given))
    chosen = [files[i * len(files) // count] for i in range(count)] if count < len(files) else files
    return (open_upright(file, MODES[channels]) for file in chosen), str(given)


def _of_dataset(known: Dataset, count: int, seed: int) -> Iterator[np.ndarray]:
    """Images from everywhere in the training part."""
    import tensorflow as tf

    examples = known.examples("train", tf.constant(seed, tf.int64)).take(count)
    for image, _ in examples.map(lambda image, label: (known.decode(image), label)):
        yield image.numpy()


def summary(found: Quantization) -> Iterator[str]:
    """Lines that say what int8 did."""
    yield from map(str, found.kept)
    changes = f"up to {found.change:.2%} of the largest, {found.mean_change:.2%} of the mean"
    same = "" if found.agreement is None else f"; {found.agreement:.2%} of them keep their largest output"
    before, after = tables.megabytes(found.size_before), tables.megabytes(found.size_after)
    yield (
        f"int8: {counted(found)} on {found.islands} island{'s' * (found.islands != 1)}; {before} became {after}; "
        f"outputs on the {found.images} images change by {changes}{same}."
    )


def counted(found: Quantization) -> str:
    return f"{found.operators} of {found.operators + len(found.kept)} real convolutions and dense layers"
