"""Finite decision processes, on which every expectation is a finite sum.

Exact J and ∇J, all trajectories of a process, the derivation.

Float64 NumPy. Imports core alone.
"""
