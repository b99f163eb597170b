"""One external system each, named by its role."""
