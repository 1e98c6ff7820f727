"""Copies of an environment that Python steps: one by one, or by a package that steps all of
them.
"""
