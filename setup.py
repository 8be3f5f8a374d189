from pathlib import Path

from setuptools import find_packages, setup

# zoo/ and converters/ stand at the top level of the repository; the links larq_rep/zoo and larq_rep/converters make
# them larq_rep.zoo and larq_rep.converters, for Python, setuptools, mypy and editors alike.
setup(
    name="larq-rep",
    version="0.2.0",
    description="Binary networks of RepBNN, ReActNet and their peers for Larq, from Keras to a verified .tflite",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["larq_rep", "larq_rep.*", "larq_rep_cli", "larq_rep_cli.*"]),
    package_data={"larq_rep": ["py.typed"], "larq_rep.zoo": ["forms.json", "layers.json"]},
    install_requires=[
        # tf-keras 2.x asks for TensorFlow 2.x itself, so the two always match.
        "tensorflow>=2.16,<2.22",
        "tf-keras>=2.16,<2.22",
        "larq>=0.14,<0.15",
        "larq-compute-engine>=0.16,<0.17",
        # The delegate, of the folder runtime/: pip install ./runtime .
        "larq-rep-runtime==0.2.0",
        "numpy>=1.26,<2",
        "typing_extensions>=4.1",
        "click>=8.2",
        "rich>=13",
        "matplotlib>=3.8",
        "pillow>=10",
        "scikit-learn>=1.4",
        "tensorboard>=2.16",
        "tensorflow-datasets>=4.9",
        # tensorflow-datasets needs it and does not say so.
        "importlib_resources",
    ],
    extras_require={
        # Its protobuf pin holds TensorFlow below 2.20 and slows conversion, hence an extra.
        # Its zookeeper calls typeguard as it was before version 3, and does not say so.
        "zoo": ["larq-zoo>=2.4", "typeguard<3"],
        "safetensors": ["safetensors>=0.4"],
        # Tests compare with PyTorch's own operations where it is installed.
        "torch": ["torch>=2.6"],
        "dev": [
            "safetensors>=0.4",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.8",
            "mypy>=1.11",
            "clang-format==23.1.5",
        ],
    },
    entry_points={"console_scripts": ["lce = larq_rep_cli.lce:main", "lqr = larq_rep_cli.lqr:main"]},
)
