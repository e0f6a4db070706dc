"""One file per engine; the registry finds them by name."""
