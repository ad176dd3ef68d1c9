"""Policies side by side: the bundled models with every policy."""
