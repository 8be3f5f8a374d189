"""Records which network of the zoo a model is, on the model itself and in its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.images import Preparation

if TYPE_CHECKING:
    from larq_rep.zoo.records import Variant


@dataclass(frozen=True)
class Record:
    """The zoo network that a model is, or from which `larq_rep.reptran` or `larq_rep.zoo.Ensemble` made it.

    # Attributes
        network: Name of its constructor.
        arguments: Keyword arguments with which the constructor builds the same network, without `input_tensor` and
            `weights`.
        preparation: How the run that trained it prepared its images; `None` if it is no run's.
        classes: The names of the classes of that run; empty if they are not known.
    """

    network: str
    arguments: Mapping[str, Any]
    preparation: Preparation | None = None
    classes: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant | None:
        """The published form with these arguments; `None` if none was published."""
        import larq_rep

        return next(iter(larq_rep.zoo.get_network(self.network).forms(self.arguments)), None)


@lq.utils.register_keras_custom_object
class RecordedModel(tf.keras.Model):
    """A functional model with a `record`, which `.h5` and `.keras` files and SavedModels keep."""

    record: Record | None = None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.record is not None:
            arguments = {key: _plain(value) for key, value in self.record.arguments.items()}
            config["record"] = {"network": self.record.network, "arguments": arguments}
            if self.record.preparation is not None:
                config["record"] |= {"preparation": self.record.preparation.to_dict(), "classes": self.record.classes}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> RecordedModel:
        config = dict(config)
        record = config.pop("record", None)
        model = super().from_config(config, custom_objects)
        if record is not None:
            values = record["arguments"].items()
            # JSON has no tuples, and no argument of a constructor is a list.
            arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in values}
            prepared = record.get("preparation")
            model.record = Record(
                record["network"],
                arguments,
                None if prepared is None else Preparation.from_dict(prepared),
                tuple(record.get("classes", ())),
            )
        return model


def recorded(model: tf.keras.Model, record: Record | None) -> tf.keras.Model:
    """Returns a functional model of the same layers with this record; the model itself if there is none."""
    if record is None:
        return model
    if not isinstance(model, RecordedModel):
        model = RecordedModel(model.input, model.output, name=model.name)
    model.record = record
    return model


def known_images(model: tf.keras.Model) -> tuple[Preparation | None, tuple[str, ...] | None]:
    """The preparation of images and the names of classes that the record of a model tells; `None` what it does not."""
    import larq_rep

    return larq_rep.zoo.preprocess.known(model), larq_rep.zoo.predictions.known(model)


def _plain(value: Any) -> Any:
    """Turns a value into one that JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
