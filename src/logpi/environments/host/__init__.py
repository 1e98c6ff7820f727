"""Copies of an environment that Python steps: in this process, in workers, or by a package that
steps all of them.
"""
