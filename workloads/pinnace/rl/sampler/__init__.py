"""Playing: attempts from the coordinator, agents of any kind, rewards. No torch."""
