"""`python -m deepseek` is the command `deepseek`."""

from deepseek.cli import main

if __name__ == "__main__":
    main()
