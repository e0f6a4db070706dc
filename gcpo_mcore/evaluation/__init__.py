"""Evaluation: held-out accuracy, and published problems by a stated protocol, with figures that have error bars."""
