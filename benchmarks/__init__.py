"""Speed benchmarks, which report ratios measured within one run."""
