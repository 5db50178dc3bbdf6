"""`python -m ttcompress`: the command line."""

from ttcompress.cli import main

if __name__ == "__main__":
    main()
