"""A page to look at the models of a server: scores, completions, samples and cards."""
