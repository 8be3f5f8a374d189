"""Counts the cost of a network: binary and real multiply-accumulates, parameters and size.

The conventions are those of ReActNet's and RepBNN's tables. One operation is one multiply-accumulate.
Only the kernels of convolutions and dense layers count; biases, activations, pooling, additions and the
scaling factors of binary kernels do not. Taps that fall on padding count like any other.

OPs = FLOPs + BOPs / 64

# References
    - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
      Functions](https://arxiv.org/abs/2003.03488), Table 1
    - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
      Repeating](https://arxiv.org/abs/2207.09049), section 4.4, Tables 1 and 2
"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf

from larq_rep.checks import require_model
from larq_rep.graph import has_graph, nodes
from larq_rep.layers.circulant import CirculantConv2D
from larq_rep.layers.mirror import Mirror
from larq_rep.layers.repeat import Repeat, RepLayer
from larq_rep.quantizers.base import bases_of, planes_of, precision_of

_keras = tf.keras.layers
_DENSE = _keras.Dense
_TRANSPOSED = (_keras.Conv1DTranspose, _keras.Conv2DTranspose, _keras.Conv3DTranspose)
_DEPTHWISE = (_keras.DepthwiseConv1D, _keras.DepthwiseConv2D)
_SEPARABLE = (_keras.SeparableConv1D, _keras.SeparableConv2D)
_CONV = (_keras.Conv1D, _keras.Conv2D, _keras.Conv3D, *_TRANSPOSED, *_DEPTHWISE, *_SEPARABLE)
# Operations that multiply matrices but have no weights of their own.
_MULTIPLIES = re.compile(r"conv|matmul|einsum|tensordot")


@dataclass
class LayerCost:
    """The cost of one layer for one input image, summed over its calls.

    # Attributes
        name: Name of the layer, preceded by the names of the models it is nested in (`model/layer`).
        layer: Class of the layer.
        calls: How often the network calls it. Its parameters count only once.
        bops: Multiply-accumulates of binary weights with binary activations, see `count` for those of several bits.
        conv_flops, dense_flops: Real multiply-accumulates.
        bn_flops: Operations of a batch normalisation, see `count`.
        trainable_params, non_trainable_params: Numbers of its weights.
        binary_params: Number of its weights that are binary, or a sum of binary ones.
        bits: Size of its weights, see `count`.
        trainable_bits: Size of its trainable weights.
    """

    name: str
    layer: str
    calls: int = 0
    bops: int = 0
    conv_flops: int = 0
    dense_flops: int = 0
    bn_flops: int | Fraction = 0
    trainable_params: int = 0
    non_trainable_params: int = 0
    binary_params: int = 0
    bits: int = 0
    trainable_bits: int = 0


@dataclass(frozen=True)
class Cost:
    """The cost of a network for one input image: a row for each layer, and the totals.

    # Attributes
        rows: One `LayerCost` for each layer, in the order in which the network calls them.
        uncounted: Names of layers that multiply by a kernel in a way that `count` does not know. Their parameters
            are counted, but their operations are missing in all totals.
    """

    rows: tuple[LayerCost, ...]
    uncounted: tuple[str, ...]

    @property
    def bops(self) -> int:
        """Multiply-accumulates of binary weights with binary activations."""
        return sum(row.bops for row in self.rows)

    @property
    def conv_flops(self) -> int:
        """Real multiply-accumulates of convolutions."""
        return sum(row.conv_flops for row in self.rows)

    @property
    def dense_flops(self) -> int:
        """Real multiply-accumulates of dense layers."""
        return sum(row.dense_flops for row in self.rows)

    @property
    def bn_flops(self) -> int | Fraction:
        """Operations of the batch normalisations."""
        return _exact(sum(Fraction(row.bn_flops) for row in self.rows))

    @property
    def flops(self) -> int:
        """Real multiply-accumulates of convolutions and dense layers."""
        return self.conv_flops + self.dense_flops

    @property
    def ops(self) -> int | Fraction:
        """FLOPs + BOPs / 64, without batch normalisation; an `int` where that is exact."""
        return _exact(self.flops + Fraction(self.bops, 64))

    @property
    def ops_with_bn(self) -> int | Fraction:
        """`ops` and `bn_flops` together, as in Table 1 of RepBNN."""
        return _exact(Fraction(self.ops) + self.bn_flops)

    @property
    def trainable_params(self) -> int:
        """Number of trainable weights, which the papers call parameters."""
        return sum(row.trainable_params for row in self.rows)

    @property
    def non_trainable_params(self) -> int:
        """Number of weights that no gradient changes: the statistics of the batch normalisations."""
        return sum(row.non_trainable_params for row in self.rows)

    @property
    def binary_params(self) -> int:
        """Number of weights that are binary, or a sum of binary ones."""
        return sum(row.binary_params for row in self.rows)

    @property
    def real_params(self) -> int:
        """Number of all other weights, including `non_trainable_params`."""
        return self.trainable_params + self.non_trainable_params - self.binary_params

    @property
    def bits(self) -> int:
        """Size of all stored weights."""
        return sum(row.bits for row in self.rows)

    @property
    def trainable_bits(self) -> int:
        """Size of the trainable weights, without the statistics of the batch normalisations."""
        return sum(row.trainable_bits for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns totals and rows as plain numbers, strings and lists; a total that is not an integer is a `float`."""
        totals = [name for name, member in vars(type(self)).items() if isinstance(member, property)]
        return {
            **{name: _plain(getattr(self, name)) for name in totals},
            "rows": [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows],
            "uncounted": list(self.uncounted),
        }


class _Tensor(NamedTuple):
    """The known properties of a tensor between two layers."""

    # Number of binary maps whose sum it is, 0 if it is real.
    planes: int = 0
    # Number of channels divided by that in the network before RepTran.
    width: Fraction = Fraction(1)


def count(model: tf.keras.Model) -> Cost:
    r"""Counts operations, parameters and bits of a model for one input image.

    A multiply-accumulate is binary if both the kernel and the input of the layer have precision 1: its
    `input_quantizer` has precision 1 (`lq.quantizers.NoOp(precision=1)` is trusted), or it has none and the
    layer directly before is a quantizer of precision 1. Nothing may stand between: Larq Compute Engine
    also leaves such a convolution in float. Everything else is a FLOP, even the pointwise half of a separable
    convolution, whose input is the sum that the depthwise half computed (`lq.models.summary` differs there).

    **Batch normalisation** is 2 operations for each output element (normalise, scale). In a network with
    `Rep*` layers of factor \\(\beta\\) the repeated channels share the normalisation, and RepBNN takes
    \\[2 N \left(\frac{1}{2\beta} + \frac{\beta}{2}\right)\\]
    with \\(N\\) the number of elements the layer has *without* repetition. \\(\beta\\) is read from the
    `Rep*` layers; if they disagree, each layer takes the factor of its own input. The paper applies the
    factor to every batch normalisation of the network; so does this function, to reproduce Table 1. It is
    exact only directly behind the repetition of a `Rep*` layer: a batch normalisation before the first
    repetition (the stem of Rep-ReActNet-A) really costs \\(2N\\), one behind the repetition of the stem
    \\(N(1 + \beta)\\), and one whose channels all differ \\(2 N \beta\\). RepBNN prints 4.822e9 BOPs for
    ReActNet-A; the multiply-accumulates are 4.817e9.

    **Size** is 1 bit for a binary weight, 32 bits for a real one and otherwise the precision of the
    quantizer. `bits` counts all weights that a checkpoint stores; `trainable_bits` leaves out the statistics
    of the batch normalisations, which the papers do not count as parameters.

    Transposed convolutions apply the kernel once for each input pixel. Nested models are followed, and layers that
    are called several times count each time. The multiplications of other kinds of layers are not known: such a layer
    is named in `Cost.uncounted` if it has a kernel.

    **Several bits**: activations of K bits whose quantizer has `planes`, and of Larq's `DoReFa` and `SteTern`, are
    a sum of K maps of +1 and -1. With binary weights they count K times the multiply-accumulates as binary ones, as K
    binary convolutions compute them. So do M times as many if the kernel is a sum of M binary ones (its quantizer has
    `bases`). A ternary map counts as the two signs that it is deployed as. Without such a form the layer is real.

    # Arguments
        model: A functional or sequential model with a fixed input size. Nothing is run.

    # Returns
        A `Cost`.

    # Raises
        TypeError: If `model` is not a Keras model.
        ValueError: If the model has no graph of layers, a size is not known, or a quantizer does not say its precision.
    """
    require_model("cost.count", model)
    _require_graph(model)
    betas = {layer.beta for layer in _layers(model) if isinstance(layer, RepLayer)} - {1}
    counter = _Counter(betas.pop() if len(betas) == 1 else None)
    counter.visit(model, [_Tensor()] * len(model.inputs), "")
    return Cost(tuple(counter.rows.values()), tuple(counter.uncounted))


class _Counter:
    def __init__(self, beta: int | None):
        self.beta = beta
        self.rows: dict[int, LayerCost] = {}
        self.uncounted: list[str] = []

    def visit(self, model: tf.keras.Model, inputs: list[_Tensor], prefix: str) -> list[_Tensor]:
        """Counts the calls of all layers of a graph; returns the properties of its outputs."""
        _require_graph(model)
        known = {id(tensor): state for tensor, state in zip(model.inputs, inputs, strict=True)}
        for node in nodes(model):
            states = [known[id(tensor)] for tensor in node.keras_inputs]
            name = prefix + node.layer.name
            outputs = tf.nest.flatten(node.outputs)
            if isinstance(node.layer, tf.keras.Model):
                results = self.visit(node.layer, states, f"{name}/")
            else:
                results = [self._call(node, name, states)] * len(outputs)
            known.update(zip(map(id, outputs), results, strict=True))
        return [known[id(tensor)] for tensor in model.outputs]

    def _call(self, node, name: str, inputs: list[_Tensor]) -> _Tensor:
        """Adds one call of a layer to its row; returns the properties of its outputs."""
        layer = node.layer
        if id(layer) not in self.rows:
            _require_precisions(layer, name)
            self.rows[id(layer)] = _parameters(layer, name)
            if _is_unknown(layer):
                self.uncounted.append(name)
        row = self.rows[id(layer)]
        row.calls += 1

        # If a layer is called only on constants, nothing is known.
        before = inputs[0] if inputs else _Tensor()
        quantizer = layer if isinstance(layer, lq.quantizers.Quantizer) else getattr(layer, "activation", None)
        output = _Tensor(_planes(quantizer), max([t.width for t in inputs], default=Fraction(1)))

        if isinstance(layer, (_DENSE, *_CONV)):
            quantizer = getattr(layer, "input_quantizer", None)
            for macs, kernel, planes in _macs(node, name, before.planes if quantizer is None else _planes(quantizer)):
                if binary := planes * _bases(kernel):
                    row.bops += binary * macs
                elif isinstance(layer, _DENSE):
                    row.dense_flops += macs
                else:
                    row.conv_flops += macs
            if isinstance(layer, RepLayer):
                return output._replace(width=Fraction(layer.beta))
            return output if isinstance(layer, _DEPTHWISE) else output._replace(width=Fraction(1))
        if isinstance(layer, Repeat):
            return output._replace(width=before.width * layer.times)
        if isinstance(layer, _keras.BatchNormalization):
            elements = _size(node.output_shapes[1:], name)
            beta = self.beta or before.width
            row.bn_flops = _exact(row.bn_flops + elements / before.width * (1 / Fraction(beta) + beta))
        elif "getitem" in layer.name and len(node.output_shapes) == 2:
            # After the global pooling a slice takes a part of the repeated channels (RepBNN, section 4.3,
            # solutions 2 and 3). On a feature map a slice belongs to the network itself.
            return output._replace(width=before.width * node.output_shapes[-1] / node.input_shapes[-1])
        return output


def _macs(node, name: str, planes: int) -> Iterator[tuple[int, tf.Variable, int]]:
    """Yields for each kernel of a layer its multiply-accumulates, the kernel, and the binary maps of its input."""
    layer = node.layer
    if isinstance(layer, _DENSE):
        yield _size(node.output_shapes[1:-1], name) * _size(layer.kernel.shape, name), layer.kernel, planes
        return
    # A transposed convolution spreads each input pixel over the taps of its kernel.
    shape = node.input_shapes if isinstance(layer, _TRANSPOSED) else node.output_shapes
    pixels = _size(shape[1:-1] if layer.data_format == "channels_last" else shape[2:], name)
    if isinstance(layer, _SEPARABLE):
        yield pixels * _size(layer.depthwise_kernel.shape, name), layer.depthwise_kernel, planes
        yield pixels * _size(layer.pointwise_kernel.shape, name), layer.pointwise_kernel, 0
    else:
        kernel = layer.depthwise_kernel if isinstance(layer, _DEPTHWISE) else layer.kernel
        # Each latent filter of a circulant convolution is used in all its turns.
        turns = layer.turns if isinstance(layer, CirculantConv2D) else 1
        yield pixels * turns * _size(kernel.shape, name), kernel, planes


def _parameters(layer: tf.keras.layers.Layer, name: str) -> LayerCost:
    row = LayerCost(name, type(layer).__name__)
    trainable = {id(weight) for weight in layer.trainable_weights}
    # The weight of a Mirror is a flag for files.
    for weight in [] if isinstance(layer, Mirror) else layer.weights:
        size = math.prod(weight.shape)
        bits = size * _precision(weight)
        row.bits += bits
        row.binary_params += size if _bases(weight) else 0
        if id(weight) in trainable:
            row.trainable_params += size
            row.trainable_bits += bits
        else:
            row.non_trainable_params += size
    return row


def _is_unknown(layer: tf.keras.layers.Layer) -> bool:
    """Returns whether a layer may multiply by a matrix unknown to `_macs`."""
    if isinstance(layer, (_DENSE, *_CONV, _keras.PReLU)):
        return False
    if isinstance(layer, (_keras.Dot, _keras.Attention, _keras.AdditiveAttention)):
        return True
    if not layer.weights:
        return type(layer).__name__ == "TFOpLambda" and bool(_MULTIPLIES.search(layer.name))
    return any("kernel" in w.name or sum(size > 1 for size in w.shape) > 1 for w in layer.weights)


def _precision(weight: tf.Variable) -> int:
    return getattr(weight, "precision", None) or (32 if weight.dtype.is_floating else 8 * weight.dtype.size)


def _require_precisions(layer: tf.keras.layers.Layer, name: str) -> None:
    quantizers = [quantizer for attribute, quantizer in vars(layer).items() if attribute.endswith("_quantizer")]
    for quantizer in [layer, *quantizers] if isinstance(layer, lq.quantizers.Quantizer) else quantizers:
        try:
            if quantizer is not None:
                precision_of(quantizer)
        except ValueError as error:
            raise ValueError(f"Cannot count layer {name!r}: its quantizer {error}") from None


def _planes(quantizer: Any) -> int:
    """The number of binary maps whose sum a quantizer returns; 0 if it is none."""
    precision = getattr(quantizer, "precision", None) or 0
    return precision if precision == 1 or planes_of(quantizer) else 0


def _bases(kernel: tf.Variable) -> int:
    """The number of binary kernels whose sum a kernel is; 0 if it is none."""
    precision = _precision(kernel)
    return precision if precision == 1 or bases_of(getattr(kernel, "quantizer", None)) else 0


def _size(shape, name: str) -> int:
    if any(size is None for size in shape):
        raise ValueError(
            f"Cannot count layer {name!r}: a size is not known, found {tuple(shape)} without the batch. "
            "Build the model with a fixed input size."
        )
    return math.prod(shape)


def _require_graph(model: tf.keras.Model) -> None:
    if not has_graph(model):
        raise ValueError(
            f"Cannot count model {model.name!r} ({type(model).__name__}): it has no graph of layers. "
            "Expected a functional model, or a sequential one that knows its input shape."
        )


def _layers(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _exact(number) -> int | Fraction:
    return int(number) if number == int(number) else number


def _plain(value):
    return float(value) if isinstance(value, Fraction) else value
