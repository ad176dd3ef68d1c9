"""`simulsa demo`: the whole method on the embedded model and bundled speech."""
