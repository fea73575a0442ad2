"""Handlers of the Hub's API, a file for each noun."""
