"""The check for continuous actions: one step whose action is Gaussian, clipped or squashed by tanh
on its way to the environment. Expectations are integrals over the action, by Gauss quadrature.
"""
