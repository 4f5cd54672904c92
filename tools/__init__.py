"""Programs for users; each is run by its path: ``python tools/save_masks.py``."""
