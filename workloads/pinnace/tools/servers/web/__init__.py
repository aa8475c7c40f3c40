"""Searching the web with several providers, and fetching its pages without reaching what is not the web."""
