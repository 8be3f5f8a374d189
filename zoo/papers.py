"""The publications that the records of the networks name."""

from typing import NamedTuple


class Paper(NamedTuple):
    """The publication of a network; `arxiv` is the id, or a DOI where there is none."""

    title: str
    arxiv: str

    @property
    def url(self) -> str:
        return f"https://doi.org/{self.arxiv}" if "/" in self.arxiv else f"https://arxiv.org/abs/{self.arxiv}"


ABC_NET = Paper("Towards Accurate Binary Convolutional Neural Network", "1711.11294")
ALEXNET = Paper("ImageNet Classification with Deep Convolutional Neural Networks", "10.1145/3065386")
ARESB = Paper(
    "AresB-Net: accurate residual binarized neural networks using shortcut concatenation and shuffled grouped "
    "convolution",
    "10.7717/peerj-cs.454",
)
BENN = Paper("Binary Ensemble Neural Network: More Bits per Network or More Networks per Bit?", "1806.07550")
BINARY_CONNECT = Paper(
    "BinaryConnect: Training Deep Neural Networks with binary weights during propagations", "1511.00363"
)
BINARYDENSENET = Paper("BinaryDenseNet: Developing an Architecture for Binary Neural Networks", "1906.08637")
BIREAL = Paper(
    "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and Advanced "
    "Training Algorithm",
    "1808.00278",
)
BIREAL50 = Paper("Bi-Real Net: Binarizing Deep Network Towards Real-Network Performance", "1811.01335")
BNN = Paper(
    "Binarized Neural Networks: Training Deep Neural Networks with Weights and Activations Constrained to +1 or -1",
    "1602.02830",
)
CBCN = Paper(
    "Circulant Binary Convolutional Networks: Enhancing the Performance of 1-bit DCNNs with Circulant Back Propagation",
    "1910.10853",
)
DOREFA = Paper(
    "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients", "1606.06160"
)
FRACBNN = Paper("FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional Activations", "2012.12206")
GROUP_NET = Paper(
    "Structured Binary Neural Networks for Accurate Image Classification and Semantic Segmentation", "1811.10413"
)
HWGQ = Paper("Deep Learning with Low Precision by Half-wave Gaussian Quantization", "1702.00953")
INQ = Paper("Incremental Network Quantization: Towards Lossless CNNs with Low-Precision Weights", "1702.03044")
IR_NET = Paper("Forward and Backward Information Retention for Accurate Binary Neural Networks", "1909.10788")
LQ_NETS = Paper("LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural Networks", "1807.10029")
MELIUSNET = Paper("MeliusNet: Can Binary Neural Networks Achieve MobileNet-level Accuracy?", "2001.05936")
MOBILENET = Paper("MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", "1704.04861")
PRESB = Paper(
    "PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped convolution",
    "10.7717/peerj-cs.842",
)
QUICKNET = Paper(
    "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized Neural Networks", "2011.09398"
)
RBNN = Paper("Rotated Binary Neural Network", "2009.13055")
REACTNET = Paper("ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions", "2003.03488")
REAL_TO_BINARY = Paper("Training binary neural networks with real-to-binary convolutions", "2003.11535")
RECU = Paper("ReCU: Reviving the Dead Weights in Binary Neural Networks", "2103.12369")
REPBNN = Paper("RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via Repeating", "2207.09049")
RESNET = Paper("Deep Residual Learning for Image Recognition", "1512.03385")
SIBNN = Paper("Sparsity-Inducing Binarized Neural Networks", "10.1609/aaai.v34i07.6900")
SYQ = Paper("SYQ: Learning Symmetric Quantization For Efficient Deep Neural Networks", "1807.00301")
TBN = Paper("TBN: Convolutional Neural Network with Ternary Inputs and Binary Weights", "10.1007/978-3-030-01216-8_20")
TRAINED_BINARIZATION = Paper(
    "Accurate and Compact Convolutional Neural Networks with Trained Binarization", "1909.11366"
)
TTQ = Paper("Trained Ternary Quantization", "1612.01064")
TWN = Paper("Ternary Weight Networks", "1605.04711")
XNOR_NET = Paper("XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", "1603.05279")
