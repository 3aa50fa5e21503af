"""How the demonstration models came to be: rendered scenes, training, and the check of what they can do."""
