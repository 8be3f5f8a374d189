"""The programs `lce` and `lqr`.

A package of its own, because `import larq_rep` imports TensorFlow and `--help` should not wait for it. So
nothing here imports `larq_rep`, TensorFlow, numpy or rich before a command needs them.
"""
