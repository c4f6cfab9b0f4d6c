"""The report on the estimators: tables, plots and claims from committed results."""
