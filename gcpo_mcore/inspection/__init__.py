"""What can be said of a machine, of data and of a reward before a run is started."""
