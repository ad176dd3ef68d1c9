"""Makes the speech that `simulsa demo` bundles."""
