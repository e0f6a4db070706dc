"""Work on data sets before a run: checking them, making golden answers, spoiling them on purpose."""
