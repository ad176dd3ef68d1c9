"""Policies side by side: the embedded models with every policy."""
