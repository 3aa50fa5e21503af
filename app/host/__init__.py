"""What this machine gives the service, and how much of everything follows from it. Leaves."""
