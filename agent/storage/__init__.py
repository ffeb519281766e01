"""Files that are written whole or not at all, checkpoints, random states."""
