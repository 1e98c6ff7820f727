"""What each command of `logpi` asks, and what it then calls.

Imports nothing heavy before a command runs: `logpi --help` must answer at once.
"""
