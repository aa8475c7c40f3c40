"""Agents that only know an OpenAI base URL, captured token by token. No torch."""
