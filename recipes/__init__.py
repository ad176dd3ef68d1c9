"""Reproducible runs."""
