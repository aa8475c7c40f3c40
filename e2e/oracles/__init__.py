"""Other people's programs that tests compare with."""
