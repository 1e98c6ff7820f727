"""`python -m logpi`, the same as `logpi`."""

from logpi.cli import program

if __name__ == "__main__":
    program()
