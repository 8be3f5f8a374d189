r"""Quantizers of the published networks that Larq lacks.

They are used like Larq's own, as objects or by their alias:

```python
lq.layers.QuantConv2D(64, 3, input_quantizer="r_sign", kernel_quantizer="scaled_sign")
lq.layers.QuantConv2D(64, 3, input_quantizer=EDESign(t=0.001), kernel_quantizer=LibraSign(t=0.001))
```

Everywhere \\(\operatorname{sign}(0) = +1\\), as in Larq and Larq Compute Engine (PyTorch has 0 there), and
every forward pass is written so that the Larq Compute Engine converter recognises it as binary. Where activations have
\\(2^K\\) levels (`Thermometer`, `Uniform`, `LearnedLevels`) or are a sum of \\(K\\) signs (`TernaryInput`,
`ResidualSigns`), a convolution of them is the sum of \\(K\\) binary ones: `base.planes_of` gives the signs.

**A weight has one sign.** `LibraSign`, `ReCUSign`, `RotatedSign` and `ScaledBinary(centre=True)` compute before they
take the sign of a weight. In float32, one call would round a weight next to the threshold to one side, another call or
a converter to the other. So they decide in float64 (`LibraSign` its power of two, too) unless Keras says
`training=True`; a step of training decides in float32, as the authors' code does. Under a policy of half precision,
Keras rounds a kernel before any quantizer sees it, and the sign is that of the rounded kernel.

**A custom quantizer** tells the rest of the library what it needs to know through these members of its class, as ours
do. An error names a member that is needed but missing; Larq's classes are known.

| member | meaning | asked by |
|---|---|---|
| `precision` | the bits of its results | cost, statistics, plots, checkpoint import |
| `value(x)` | the tensor whose sign it takes, of the shape of `x` | statistics, plots, checkpoint import |
| `window(x)` | how far from 0 the value may be for gradients to pass; `None` if there is no limit | statistics, plots |
| `saturated(x)` | where no gradient passes, if the window does not say it | statistics |
| `zero_is_positive` | `False` if a value of 0 does not become +1, as in PyTorch | checkpoint import |
| `scales_channels` | `False` if a binary kernel has several scales in an output channel | converter |
| `coefficients` | its learned shifts, `{"shift of the sign": weight}`, or `{}` | weight decay, plots |
| `planes(x)` | the signs that its several levels are a sum of, see `base.planes_of` | converter, cost |
| `bases(w)` | the binary kernels that its kernel is a sum of, see `base.bases_of` | converter, cost |
| `schedule` | the class of the callback that changes its parameters in training, or `None` | `schedules_for` |
| `start_from(kernel)` | sets its weights by a latent kernel that was trained without it | `transfer` |
| `mirrored` | set to `True` if its kernel is mirrored, see `larq_rep.layers.Mirror` | constructors of the zoo |

`value`, `window`, `saturated`, `zero_is_positive`, `scales_channels`, `coefficients`, `planes` and `bases` belong to
one `call`: a class that overrides `call` must define them again. Weights of a kernel quantizer are imported under the
name of the kernel's layer followed by their own. It is best to derive a `schedule` from
`larq_rep.quantizers.callbacks.QuantizerSchedule`, and a quantizer with a weight that follows the data in training from
`larq_rep.quantizers.base.MovingQuantizer`.
"""

from larq_rep.quantizers.abc_net import BasisWeights, ShiftedSigns
from larq_rep.quantizers.cbcn import CirculantKernel
from larq_rep.quantizers.frac_bnn import LowBitSign, QuantSign
from larq_rep.quantizers.ir_net import EDESign, LibraSign
from larq_rep.quantizers.levels import LearnedLevels, Thermometer, Uniform, ZeroOneSign
from larq_rep.quantizers.position_scaled import PositionScaled
from larq_rep.quantizers.power_of_two import PowerOfTwo
from larq_rep.quantizers.presb import AresSign, LeakyRSign, LeakySign
from larq_rep.quantizers.rbnn import RotatedSign, StandardizedSign
from larq_rep.quantizers.reactnet import RSign, ScaledSign
from larq_rep.quantizers.recu import ReCUInputSign, ReCURSign, ReCUSign
from larq_rep.quantizers.scaled_binary import ScaledBinary
from larq_rep.quantizers.symmetric_levels import ResidualSigns, TernaryInput
from larq_rep.quantizers.ternary_weights import TernaryWeight, TrainedTernary
from larq_rep.quantizers.xnor import CentredClip, DoReFaSign, XNORSign

__all__ = [
    "AresSign",
    "BasisWeights",
    "CentredClip",
    "CirculantKernel",
    "DoReFaSign",
    "EDESign",
    "LeakyRSign",
    "LeakySign",
    "LearnedLevels",
    "LibraSign",
    "LowBitSign",
    "PositionScaled",
    "PowerOfTwo",
    "QuantSign",
    "RSign",
    "ReCUInputSign",
    "ReCURSign",
    "ReCUSign",
    "ResidualSigns",
    "RotatedSign",
    "ScaledBinary",
    "ScaledSign",
    "ShiftedSigns",
    "StandardizedSign",
    "TernaryInput",
    "TernaryWeight",
    "Thermometer",
    "TrainedTernary",
    "Uniform",
    "XNORSign",
    "ZeroOneSign",
]
