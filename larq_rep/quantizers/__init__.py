r"""Quantizers of the published networks that Larq itself does not have.

They are used like Larq's own, as objects or by their alias:

```python
lq.layers.QuantConv2D(64, 3, input_quantizer="r_sign", kernel_quantizer="scaled_sign")
lq.layers.QuantConv2D(64, 3, input_quantizer=EDESign(t=0.001), kernel_quantizer=LibraSign(t=0.001))
```

Everywhere \\(\operatorname{sign}(0) = +1\\), as in Larq and Larq Compute Engine (PyTorch has 0 there), and
every forward pass is spelled so that the Larq Compute Engine converter recognises it as binary.
"""

from larq_rep.quantizers.frac_bnn import LowBitSign, QuantSign
from larq_rep.quantizers.ir_net import EDESign, LibraSign
from larq_rep.quantizers.presb import AresSign, LeakyRSign, LeakySign
from larq_rep.quantizers.rbnn import RotatedSign, StandardizedSign
from larq_rep.quantizers.reactnet import RSign, ScaledSign
from larq_rep.quantizers.recu import ReCUInputSign, ReCUSign
from larq_rep.quantizers.xnor import CentredClip, DoReFaSign, XNORSign

__all__ = [
    "AresSign",
    "CentredClip",
    "DoReFaSign",
    "EDESign",
    "LeakyRSign",
    "LeakySign",
    "LibraSign",
    "LowBitSign",
    "QuantSign",
    "RSign",
    "ReCUInputSign",
    "ReCUSign",
    "RotatedSign",
    "ScaledSign",
    "StandardizedSign",
    "XNORSign",
]
