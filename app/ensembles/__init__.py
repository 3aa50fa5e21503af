"""Several models and other services asked together, and their answers combined."""
