"""A small, pure model of what surrounds the decisions: objects as the API server shows them, and a world that moves."""
