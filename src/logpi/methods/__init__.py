"""One file a method: its options, its loss, its step; and what the methods share.

registry.py alone knows all of them. Imports core, networks, environments and estimators.
"""
