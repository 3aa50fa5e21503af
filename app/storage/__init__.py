"""How files, SQLite and Redis are used: one way for each. Leaves."""
