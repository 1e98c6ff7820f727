"""Known ways to be wrong, and which of them explain what a check has found.

An estimator is Σ_t aggregation × γ^t × ratio × advantage × ∇ log π. Each factor has its right form
and known wrong ones, each a function of its own; search.py compares the exact expectations of their
combinations with what was found. verdict_causes.py has the causes that the verdict itself shows.
"""
