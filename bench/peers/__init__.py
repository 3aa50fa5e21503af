"""The others: each serves the same weights as its own documentation advises."""
