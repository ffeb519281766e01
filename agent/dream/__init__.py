"""The learned world as an environment: for other learners, and to play in."""
