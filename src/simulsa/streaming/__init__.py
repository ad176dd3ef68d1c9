"""Simultaneous decoding: the state of a stream, the step that advances streams, and what to commit."""
