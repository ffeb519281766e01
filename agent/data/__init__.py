"""What was played: the replay, which sequences are drawn from it, and who plays."""
