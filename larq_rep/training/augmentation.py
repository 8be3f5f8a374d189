"""Augments images as the published recipes do, with TensorFlow operations."""

import functools
import math
from dataclasses import dataclass

import tensorflow as tf

from larq_rep.images import Evaluation, Size, covering, height_width, normalised, resized

# Eigenvalues and eigenvectors of the RGB covariance of ImageNet, of images in 0..1.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

_ATTEMPTS = 10
_PADDED = 32  # The image size that `padding` refers to.


@dataclass(frozen=True)
class Augmentation(Evaluation):
    """The image processing of one recipe. `dataclasses.asdict` turns it into plain values.

    In training, in this order: crop, colour jitter, truncated lighting, flip, scaling to 0..1, ordinary lighting,
    normalisation, erasing. In evaluation: resize, central crop, scaling to 0..1, normalisation. Grey images have
    no colours: jitter only changes their brightness and contrast, and lighting and normalisation skip them, so they
    stay in 0..1.

    # Arguments
        crop: `"pad"`: the image gets a border of zeros and a random crop of the padded image is taken. `"resized"`:
            a crop of random area and aspect is resized, see `random_box`. `None`: the image is resized until it
            just covers the size and cropped in the middle (which `"pad"` also does first, if the size differs).
        padding: Width of the border at 32 pixels, in proportion at other sizes.
        scale: Least and greatest area of a resized crop as a share of the image.
        ratio: Least and greatest width / height of a resized crop.
        flip: Whether half of the images are mirrored.
        lighting: `None`, a number or `"truncated"`. A number is the standard deviation s of PCA lighting: the
            colour V (λ ∘ r), three r ~ N(0, s²), is added to the image in 0..1, with the eigenvectors V and the
            eigenvalues λ of the colours of ImageNet. `"truncated"` is ReActNet's way: s = 0.1, the
            colour is added to levels 0..255, which are clipped and truncated to integers. As it is always below
            1, a channel stays as it is or becomes one level darker.
        jitter: `None` or (brightness, contrast, saturation, hue), as in torchvision's ColorJitter: factors
            uniform in [max(0, 1 - b), 1 + b] and so on, a hue shift uniform in [-h, h], in random order.
        erasing: Whether half of the images get a rectangle of zeros after the normalisation, of 2 % to 33 % of
            the area and height / width between 0.3 and 3.3.
        mean, std, test_resize: See `larq_rep.images.Evaluation`.

    # Raises
        ValueError: If a value is not one of these.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), the code
        - [Going Deeper with Convolutions](https://arxiv.org/abs/1409.4842), section 6 (resized crop)
        - [ImageNet Classification with Deep Convolutional Neural
          Networks](https://doi.org/10.1145/3065386), section 4.1 (lighting)
        - [Random Erasing Data Augmentation](https://arxiv.org/abs/1708.04896)
    """

    crop: str | None = None
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    lighting: str | float | None = None
    jitter: tuple[float, float, float, float] | None = None
    erasing: bool = False

    def __post_init__(self) -> None:
        if self.crop not in (None, "pad", "resized"):
            raise ValueError(f"Augmentation: crop should be 'pad', 'resized' or None, found {self.crop!r}.")
        if isinstance(self.lighting, str) and self.lighting != "truncated":
            raise ValueError(
                f"Augmentation: lighting should be 'truncated', a standard deviation or None, found {self.lighting!r}."
            )
        for name in ("scale", "ratio"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ValueError(f"Augmentation: {name} should be (least, greatest), both over 0, found {pair}.")
        if self.jitter is not None and len(self.jitter) != 4:
            raise ValueError(
                f"Augmentation: jitter should be (brightness, contrast, saturation, hue), found {self.jitter}."
            )
        super().__post_init__()


def training_image(image: tf.Tensor, augmentation: Augmentation, size: Size, seed: tf.Tensor) -> tf.Tensor:
    """Augments one image as the network sees it in training.

    # Arguments
        image: uint8 `(height, width, channels)`.
        augmentation: What is done to it.
        size: Height and width of the result, or `(height, width)`.
        seed: Two integers; all random numbers follow from them.

    # Returns
        float32 `(height, width, channels)`.
    """
    height, width = height_width(size)
    seeds = tf.unstack(tf.random.split(seed, 6))
    if augmentation.crop == "resized":
        box = random_box(tf.shape(image)[:2], seeds[0], augmentation.scale, augmentation.ratio)
        top, left, high, wide = tf.unstack(box)
        image = resized(image[top : top + high, left : left + wide], height, width)
    else:
        image = covering(image, height, width, height, width)
    if augmentation.crop == "pad":
        up, left = (round(side * augmentation.padding / _PADDED) for side in (height, width))
        padded = tf.pad(image, [[up, up], [left, left], [0, 0]])
        image = tf.image.stateless_random_crop(padded, (height, width, image.shape[-1]), seeds[0])
    if augmentation.jitter is not None:
        image = _jitter(image, augmentation.jitter, seeds[1])
    colours = image.shape[-1] == 3
    if colours and augmentation.lighting == "truncated":
        light = _light(tf.random.stateless_normal([3], seeds[2], stddev=0.1))
        image = tf.floor(tf.clip_by_value(image + light, 0, 255))
    if augmentation.flip:
        image = tf.image.stateless_random_flip_left_right(image, seeds[3])
    image = image / 255
    if colours and augmentation.lighting not in (None, "truncated"):
        image += _light(tf.random.stateless_normal([3], seeds[4], stddev=augmentation.lighting))
    image = normalised(image, augmentation.mean, augmentation.std)
    return _erased(image, seeds[5]) if augmentation.erasing else image


def random_box(shape: tf.Tensor, seed: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> tf.Tensor:
    r"""Draws a crop of random area and aspect, as torchvision's RandomResizedCrop does.

    An area \\(A = H W u,\\ u \sim U(\text{scale})\\) and an aspect
    \\(a = e^v,\\ v \sim U(\log \text{ratio})\\) are drawn ten times. The first crop of width \\(\sqrt{A a}\\) and
    height \\(\sqrt{A / a}\\), both rounded, that fits into the image is put at a random place. If none fits, the
    result is the largest crop in the middle whose aspect is within the ratio.

    # Arguments
        shape: Height and width of the image, two integers.
        seed: Two integers.
        scale, ratio: See `Augmentation`.

    # Returns
        Top, left, height and width of the crop, four integers.
    """
    place, sizes = tf.unstack(tf.random.split(seed, 2))
    heights, widths = _draw_sizes(shape, sizes, scale, ratio)
    fits = (heights > 0) & (heights <= shape[0]) & (widths > 0) & (widths <= shape[1])

    def fallback() -> tf.Tensor:
        whole = tf.cast(shape, tf.float32)
        highest, widest = tf.round(whole[1] / ratio[0]), tf.round(whole[0] * ratio[1])
        box = tf.minimum(shape, tf.cast(tf.stack([highest, widest]), tf.int32))
        return tf.concat([(shape - box) // 2, box], 0)

    first = tf.argmax(fits)
    box = tf.stack([heights[first], widths[first]])
    return tf.cond(fits[first], lambda: _placed(box, shape, place), fallback)


def _draw_sizes(
    shape: tf.Tensor, seed: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    draws = tf.random.stateless_uniform([2, _ATTEMPTS], seed)
    area = tf.cast(shape[0] * shape[1], tf.float32) * (scale[0] + (scale[1] - scale[0]) * draws[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + (high - low) * draws[1])
    sides = tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect])))
    heights, widths = tf.unstack(tf.cast(sides, tf.int32))
    return heights, widths


def _placed(box: tf.Tensor, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    corner = [
        tf.random.stateless_uniform([], one, 0, free + 1, tf.int32)
        for one, free in zip(tf.unstack(tf.random.split(seed, 2)), tf.unstack(shape - box), strict=True)
    ]
    return tf.concat([tf.stack(corner), box], 0)


def _light(random: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.constant(_EIGENVECTORS), _EIGENVALUES * random)


def _jitter(image: tf.Tensor, strengths: tuple[float, float, float, float], seed: tf.Tensor) -> tf.Tensor:
    order, draws = tf.unstack(tf.random.split(seed, 2))
    low = tf.constant([*(max(0.0, 1 - strength) for strength in strengths[:3]), -strengths[3]])
    high = tf.constant([*(1 + strength for strength in strengths[:3]), strengths[3]])
    brightness, contrast, saturation, hue = tf.unstack(low + (high - low) * tf.random.stateless_uniform([4], draws))

    def blended(image: tf.Tensor, other: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(factor * image + (1 - factor) * other, 0, 255)

    # tf.image differs: its brightness is a sum, its contrast works per channel, its saturation is the S of HSV.
    changes = [
        lambda image: blended(image, tf.zeros_like(image), brightness),
        lambda image: blended(image, tf.reduce_mean(_grey(image)), contrast),
        lambda image: blended(image, _grey(image), saturation),
        lambda image: 255 * tf.image.adjust_hue(image / 255, hue),
    ]
    if image.shape[-1] != 3:
        changes = changes[:2]
    return tf.foldl(
        lambda image, index: tf.switch_case(index, [functools.partial(change, image) for change in changes]),
        tf.random.experimental.stateless_shuffle(tf.range(len(changes)), order),
        image,
    )


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.image.rgb_to_grayscale(image) if image.shape[-1] == 3 else image


def _erased(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Does torchvision's RandomErasing with its defaults: half of the images, area 0.02 to 0.33, aspect 0.3 to 3.3."""
    whether, place, sizes = tf.unstack(tf.random.split(seed, 3))
    shape = tf.shape(image)[:2]
    # torchvision's aspect is height / width here, so the two are swapped.
    widths, heights = _draw_sizes(shape, sizes, (0.02, 0.33), (0.3, 3.3))
    fits = (heights < shape[0]) & (widths < shape[1])
    first = tf.argmax(fits)
    box = tf.minimum(tf.stack([heights[first], widths[first]]), shape)
    top, left, height, width = tf.unstack(_placed(box, shape, place))
    rows, columns = tf.range(shape[0])[:, None, None], tf.range(shape[1])[None, :, None]
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    erase = fits[first] & (tf.random.stateless_uniform([], whether) < 0.5)
    return tf.where(inside & erase, 0.0, image)
