"""A run from the outside: the command line, its folder, resuming, sweeps, results."""
