"""What a model in a layout needs of a device's memory, worked out without building it, and what a run really used."""
