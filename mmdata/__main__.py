"""`python -m mmdata` is the command `mmdata`."""

from mmdata.cli import main

main()
