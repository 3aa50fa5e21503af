"""Ways to tell somebody of an error. Each is imported only where it is set."""
