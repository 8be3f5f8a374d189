"""Building blocks that the networks of several families share."""

import tensorflow as tf

from larq_rep.layers import BatchNormalization


def batch_norm(x: tf.Tensor, name: str, **kwargs) -> tf.Tensor:
    """Batch normalisation with PyTorch's defaults and statistics."""
    return BatchNormalization(**{"momentum": 0.9, "epsilon": 1e-5, "name": name, **kwargs})(x)


def uniform_fan_in() -> tf.keras.initializers.Initializer:
    """PyTorch's default for kernels: uniform within 1 / sqrt(fan_in)."""
    return tf.keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def he_normal(mode: str = "fan_in") -> tf.keras.initializers.Initializer:
    """PyTorch's `kaiming_normal_`: not truncated, by fan-in or fan-out."""
    return tf.keras.initializers.VarianceScaling(2.0, mode=mode, distribution="untruncated_normal")


def hard_tanh(x: tf.Tensor) -> tf.Tensor:
    """PyTorch's hardtanh, min(max(x, -1), 1)."""
    # Not Activation("hard_tanh"): Keras cannot load a whole model with that from an .h5 file.
    return tf.clip_by_value(x, -1.0, 1.0)


def early_max_pool(x: tf.Tensor) -> tf.Tensor:
    """3x3 max-pooling with stride 2 whose first windows begin one pixel before a map of even size.

    (The last windows of `"same"` end one pixel behind it.)
    """
    # Pixels that the windows contain anyway, so they change no maximum.
    x = tf.pad(x, [[0, 0], [1, 0], [1, 0], [0, 0]], "SYMMETRIC")
    return tf.keras.layers.MaxPool2D(3, 2, name="maxpool")(x)


def real_conv(x, filters, kernel_size, name, strides=1, groups=1):
    """Real convolution without a bias, as the stem and the downsampling have it."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="valid" if kernel_size == 1 else "same",
        groups=groups,
        use_bias=False,
        kernel_initializer=uniform_fan_in(),
        name=name,
    )(x)


def logits_dtype() -> str | None:
    """`"float32"` if Keras' global policy is half precision, which its guide advises against for outputs; or `None`.

    With `None` a layer follows the global policy.
    """
    half = tf.keras.mixed_precision.global_policy().compute_dtype in ("float16", "bfloat16")
    return "float32" if half else None


def dense(x: tf.Tensor, units: int, name: str, kernel_initializer=None) -> tf.Tensor:
    """Logits, by a dense layer with PyTorch's initial values: uniform within 1 / sqrt(inputs), also for the bias."""
    bound = x.shape[-1] ** -0.5
    return tf.keras.layers.Dense(
        units,
        kernel_initializer=kernel_initializer or uniform_fan_in(),
        bias_initializer=tf.keras.initializers.RandomUniform(-bound, bound),
        dtype=logits_dtype(),
        name=name,
    )(x)


def classifier(x: tf.Tensor, num_classes: int | None, name: str, **kwargs) -> tf.Tensor:
    """Global average pooling and a dense layer; `x` itself if `num_classes` is `None`."""
    if num_classes is None:
        return x
    return dense(tf.keras.layers.GlobalAveragePooling2D(name="pool")(x), num_classes, name, **kwargs)
