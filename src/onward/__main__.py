"""`python -m onward`: the command line, where the command itself is not on the path."""

import sys

from onward_script import main

if __name__ == "__main__":
    sys.exit(main())
