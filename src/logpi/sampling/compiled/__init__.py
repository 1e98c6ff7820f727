"""Environments in JAX: sampling and update are one compiled program."""
