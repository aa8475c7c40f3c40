"""The tiny model and the built-in tasks of the demo and the tests."""
