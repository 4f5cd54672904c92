"""The engine that this run uses, embedded or installed: the same tests hold for both."""
