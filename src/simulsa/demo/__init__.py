"""`simulsa demo`: the whole method on the bundled model and speech."""
