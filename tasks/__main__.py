"""`python -m tasks` is `dispatcher`."""

from tasks.cli import main

main()
