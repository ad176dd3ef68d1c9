"""Experiments on the bundled model: one command each to build and measure systems, and code to present the results."""
