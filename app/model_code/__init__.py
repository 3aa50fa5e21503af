"""Models with code: what a model.py promises, how values cross to it, and the process in which it runs."""
