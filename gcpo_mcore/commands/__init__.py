"""What the tools do: one module each, behind tools/NAME.py and the console script gcpo-NAME."""
