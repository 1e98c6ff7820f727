"""Environments of two pure JAX functions, `reset` and `step`, which a compiled program steps."""
