"""Simultaneous training rows from offline ones: where to cut the audio, and how much of the translation to keep."""
