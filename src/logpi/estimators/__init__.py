"""∇J from samples: returns, baselines, the score-function surrogate, and what an estimator may ask
for.

Each function is one equation, with its tag. Imports core and networks.
"""
