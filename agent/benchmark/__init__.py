"""What runs cost: measured here, estimated for other cards; quantizers compared."""
