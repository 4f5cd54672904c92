"""The program ``maskclippp``: one module per command, each with a function ``main``."""
