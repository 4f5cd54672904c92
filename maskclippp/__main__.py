"""``python -m maskclippp`` is the program ``maskclippp``."""

from maskclippp.cli.main import main

if __name__ == "__main__":
    main()
