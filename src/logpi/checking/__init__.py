"""The exact check of a policy-gradient estimator: expectations as finite sums, a verdict, the
likely bug.
"""
