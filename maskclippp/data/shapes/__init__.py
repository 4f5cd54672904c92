"""The built-in `shapes` world: drawn scenes with exact annotation, so that the method runs without a download."""
