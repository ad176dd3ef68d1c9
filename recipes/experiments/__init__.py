"""The experiments on the embedded model: systems made and measured by one command each, and how results are shown."""
