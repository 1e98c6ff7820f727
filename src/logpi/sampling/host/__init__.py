"""Environments that Python steps: the policy acts in NumPy, and the update is a compiled
program.
"""
