"""The same work on our peers, side by side in one run, as medians and ratios: ``make bench``."""
