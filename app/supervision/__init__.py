"""Who lives, who hangs, and who ends whom: signs of life, and those that look at them."""
