"""`python -m flowdex` is the `flowdex` command."""

from flowdex.cli.main import main

if __name__ == "__main__":
    main()
