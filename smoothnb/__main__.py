"""`python -m smoothnb`, as `accelerate launch -m smoothnb` needs it."""

from smoothnb.cli import main

if __name__ == "__main__":
    main()
