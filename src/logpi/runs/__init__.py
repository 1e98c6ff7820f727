"""A run: settings, the loop, the folder on disk, checkpoints, metrics, evaluation, what a person
sees.

Imports core, networks, environments, methods and sampling.
"""
