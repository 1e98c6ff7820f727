"""Both sides of every line of the derivation [D0 … D4], computed on one process, and as text."""
