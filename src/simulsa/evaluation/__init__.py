"""Evaluation: lock-step simulation of a whole test set, its scores, and reports of them."""
