"""Programs of others against the real service: stock clients, and readers of its description. Wants two registries."""
