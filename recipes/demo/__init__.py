"""Builds the speech that `simulsa demo` bundles."""
