import larq_rep  # noqa: F401  (before TensorFlow and Larq: it chooses Keras 2)

# isort: split
import subprocess
from pathlib import Path

# The delegate of the sources as they are now, before the first test module loads it.
subprocess.run(["make", "-s", "-C", Path(__file__).resolve().parents[1]], check=True)
