import larq_rep  # noqa: F401  (before TensorFlow and Larq: it chooses Keras 2)
