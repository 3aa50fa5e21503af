"""From bytes to pixels within a deadline and a budget of memory: here, or in a process that can be ended."""
