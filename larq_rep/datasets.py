"""The single table of data sets, which training, zoo, import and command line read.

To add a data set that tensorflow_datasets prepares, add a `Dataset` to `DATASETS`. `larq_rep.training.datasets` loads
them. This file imports nothing from larq_rep, so `--help` can list the names without TensorFlow.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Statistics(NamedTuple):
    """Mean and standard deviation of each colour, with which images in 0..1 are normalised."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Dataset:
    """A data set.

    # Attributes
        name: Its name here.
        input_shape: `(height, width, channels)` of a network for it. If `form` is another data set, networks are
            trained at this size, otherwise at the size of their published form.
        num_classes: Number of classes.
        form: The data set whose published network forms are built for it: itself if networks are published for it.
        statistics: Usual normalisation, `None` for images that stay in 0..1. A recipe may use another one.
        source: Where `statistics` come from.
        test_resize: Shorter side before the central crop in evaluation, for a crop of 224 pixels, in proportion at
            other sizes. `None`: the size itself.
        classes: The names of the classes, if they are kept here: ImageNet's are those that Keras keeps.
        builder: Its name in tensorflow_datasets, an alias of `name`. `None` for the digits of scikit-learn.
        test_split: The test split of `builder`. The training split is always `"train"`.
        encoded: Whether its images stay JPEGs until they are used, because the pixels would fill the memory.
        mirrors: Whether a mirrored image has the same class.
        page, archives: Where to register for its files, and their names, if they cannot be downloaded directly.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    form: str
    statistics: Statistics | None = None
    source: str = ""
    test_resize: int | None = None
    classes: tuple[str, ...] = ()
    builder: str | None = None
    test_split: str = "test"
    encoded: bool = False
    mirrors: bool = True
    page: str = ""
    archives: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name that means this data set even where a folder has the same name."""
        return self.builder or self.name


IMAGENET_STATISTICS = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10_STATISTICS = Statistics((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100_STATISTICS = Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
# ImageNet in the code of BMXNet (BinaryDenseNet, ResNetE, MeliusNet), whose pixels go from 0 to 255.
BMXNET_STATISTICS = Statistics(
    (123.68 / 255, 116.779 / 255, 103.939 / 255),
    (58.393 / 255, 57.12 / 255, 57.375 / 255),
)

_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

DATASETS = (
    Dataset("digits", (16, 16, 1), 10, form="cifar10", mirrors=False, classes=tuple("0123456789")),
    Dataset(
        "imagenet",
        (224, 224, 3),
        1000,
        form="imagenet",
        statistics=IMAGENET_STATISTICS,
        source="torchvision",
        test_resize=256,
        builder="imagenet2012",
        # The labels of its test images are secret.
        test_split="validation",
        encoded=True,
        page="https://image-net.org/download.php",
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    ),
    Dataset(
        "cifar10",
        (32, 32, 3),
        10,
        form="cifar10",
        statistics=CIFAR10_STATISTICS,
        source="code of BMXNet and AresB-Net",
        classes=tuple(_CIFAR10_CLASSES.split()),
        builder="cifar10",
    ),
    Dataset(
        "cifar100",
        (32, 32, 3),
        100,
        form="cifar100",
        statistics=CIFAR100_STATISTICS,
        source="code of PresB-Net",
        classes=tuple(_CIFAR100_CLASSES.split()),
        builder="cifar100",
    ),
)

# The data sets for which networks are published.
PUBLISHED = {record.name: record for record in DATASETS if record.form == record.name}
_BY_NAME = {name: record for record in DATASETS for name in (record.name, record.key)}


def find(name: str) -> Dataset | None:
    """The data set with a name or alias. `None` if there is none, or if a folder has the name and it is not a `key`."""
    record = _BY_NAME.get(name)
    return None if record and name != record.key and Path(name).is_dir() else record


def names() -> list[str]:
    """All names and aliases."""
    return list(_BY_NAME)


def names_of(dataset: Dataset) -> tuple[str, ...] | None:
    """The names of the classes of a data set, without a download: ImageNet's only if Keras already has them."""
    if dataset.classes or dataset.name != "imagenet":
        return dataset.classes or None
    try:
        names = json.loads((Path.home() / ".keras" / "models" / "imagenet_class_index.json").read_text("utf-8"))
        return tuple(names[str(number)][1] for number in range(dataset.num_classes))
    except (OSError, ValueError, LookupError, TypeError):
        return None
