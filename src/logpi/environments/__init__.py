"""Where trajectories come from: Gymnasium, EnvPool, gymnax, Brax, Jumanji, finite processes.

What a user writes becomes a `HostEnvironment` or a `CompiledEnvironment` in registry.py. Imports
core, theory and networks.
"""
