"""Run folders as a page for the browser."""
