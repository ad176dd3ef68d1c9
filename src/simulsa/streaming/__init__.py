"""Simultaneous decoding: stream state, the step that advances streams, and commit policies."""
