"""`python -m tasks` is `dispatcher`."""

from dispatcher.__main__ import main

main()
