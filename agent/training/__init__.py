"""The loop, and what one update is."""
