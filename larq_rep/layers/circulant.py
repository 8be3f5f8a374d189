"""The convolution of CBCN."""

import larq as lq

_TURNS = 4


@lq.utils.register_keras_custom_object
class CirculantConv2D(lq.layers.QuantConv2D):
    r"""CBCN's convolution: each latent filter gives four filters, which are its turns by 0, 90, 180 and 270 degrees.

    Its latent kernel is `(size, size, channels, filters / 4)`. `larq_rep.quantizers.CirculantKernel` makes the kernel
    of all filters of it, with which the layer computes what a `lq.layers.QuantConv2D` does. Larq Compute Engine
    stores the kernel of all filters.

    # Arguments
        filters: Number of output channels, a multiple of 4: the four turns of a filter stand side by side.
        kernel_size: Height and width of the kernel, which are equal.
        kernel_quantizer: `"circulant_kernel"`, or an object of that class.
        *args, **kwargs: All other arguments of `lq.layers.QuantConv2D`, with its defaults; `groups` must be 1 and
            `data_format` `"channels_last"`.

    # Input shape
        `(batch, height, width, channels)` with a multiple of 4 channels: four successive ones are the orientations of
        one feature.

    # Output shape
        `(batch, new_height, new_width, filters)`

    # Raises
        ValueError: if `filters` or the number of channels is not a multiple of 4, or another argument does not suit.

    # References
        - [Circulant Binary Convolutional Networks: Enhancing the Performance of 1-bit DCNNs with Circulant Back
            Propagation](https://arxiv.org/abs/1910.10853), and its code
    """

    # The results of one latent filter.
    turns = _TURNS

    def __init__(self, filters, kernel_size, *args, kernel_quantizer="circulant_kernel", **kwargs):
        super().__init__(filters, kernel_size, *args, kernel_quantizer=kernel_quantizer, **kwargs)
        described = f"{type(self).__name__} '{self.name}'"
        if self.data_format != "channels_last" or self.groups != 1:
            raise ValueError(
                f"{described} supports data_format='channels_last' and groups=1 only, but got '{self.data_format}' and "
                f"{self.groups}."
            )
        if getattr(self.kernel_quantizer, "turns", None) != _TURNS:
            raise ValueError(
                f"{described} needs the kernel quantizer CirculantKernel, which makes the turns of its latent filters, "
                f"but got {kernel_quantizer!r}."
            )
        if filters % _TURNS:
            raise ValueError(f"{described} needs a multiple of {_TURNS} filters, but got filters={filters}.")

    def add_weight(self, name=None, shape=None, **kwargs):
        if name == "kernel":
            shape = (*shape[:-1], shape[-1] // _TURNS)
        return super().add_weight(name, shape, **kwargs)
