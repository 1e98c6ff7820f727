"""π(a|s; θ) and V(s, t; w): layers, memories, encoders, heads, distributions, built from the spaces
of an environment.

Everything that acts is written for JAX and for NumPy arrays alike. Imports core.
"""
