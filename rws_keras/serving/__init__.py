"""Scores as a service: export to SavedModel, a server of TF Serving's API, and its client."""
