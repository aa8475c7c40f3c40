"""Between the processes of a run: the coordinator, and those who speak to it over HTTP. No torch."""
