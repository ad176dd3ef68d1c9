"""Evaluation: lock-step simulation of a test set, its scores, and reports."""
