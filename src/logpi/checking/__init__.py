"""The exact check of a policy-gradient estimator: expectations as finite sums, a verdict, the
likely bug.

Imports core, theory and the contract of estimators.
"""
