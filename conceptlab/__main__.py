"""``python -m conceptlab``: the command line."""

from conceptlab.cli import main

if __name__ == "__main__":
    main()
