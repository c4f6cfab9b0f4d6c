"""Recipes, and what the commands `rws-keras fit`, `evaluate` and others do."""
