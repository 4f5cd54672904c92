"""What the scripts of the folder above share: originals, files to make, steps and options."""
