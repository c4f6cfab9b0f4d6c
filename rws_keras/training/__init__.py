"""Recipes, and the command that runs them: `python -m training --help`."""
