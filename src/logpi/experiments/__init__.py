"""Many runs: the settings and seeds of a sweep, and where its runs are made.

A run is a folder; whatever stands here reads and writes run folders. Imports runs and what runs
imports.
"""
