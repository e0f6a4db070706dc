"""One run, from the command line to its checkpoints."""
