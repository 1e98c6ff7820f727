"""Trajectories of a policy in an environment, for both kinds of environment, and the update after
each batch.

The seam is seam.py. Imports core, networks, environments and methods.
"""
