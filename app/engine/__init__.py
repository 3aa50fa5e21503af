"""The inference process and the door to it. No Flask here; torch only behind ``worker``."""
