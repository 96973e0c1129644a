"""Stands for the package where a file of it is started by its path, as `python ptb/plot.py` is.

Python looks for modules beside that file then, so that `import ptb` finds this one, which says how
to start it. It does the same where Python is started in this folder.
"""

import os
import sys

PROGRAMS = ("cluster", "export", "language_model", "plot")
FOLDER = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(FOLDER)

path = sys.argv[0]
if path == "-m":  # as after `python -m ptb.plot`
    path = sys.orig_argv[sys.orig_argv.index("-m") + 1].removeprefix("ptb.") + ".py"
folder, name = os.path.split(os.path.abspath(path))
if folder != FOLDER or not name.endswith(".py"):
    raise ImportError(f"the package is to be imported from {PROJECT}")
stem = name.removesuffix(".py")
command = f"python -m ptb.{stem}" if stem in PROGRAMS else "python lstm.py"
problem = "is a part of a package" if stem in PROGRAMS else "is no program"
print(f"{name} {problem}; start this in {PROJECT}: {command}", file=sys.stderr)
sys.exit(2)
