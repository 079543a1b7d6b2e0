"""Folders: walk them, weigh them, empty them; and work on them out of process."""

import json
import os
import shutil
import stat
import sys
import traceback

MIB = 1 << 20
GIB = 1 << 30


def in_child(fn, *args):
    """Run fn in a forked child and return its JSON-able result.

    Linux charges the pre-exec image to a child's max RSS, so a large harness
    would inflate every tool's figure; memory-hungry steps run out of process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(r)
            with os.fdopen(w, "w") as out:
                json.dump(fn(*args), out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(w)
    with os.fdopen(r) as inp:
        text = inp.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{getattr(fn, '__name__', fn)} failed")
    return json.loads(text)


def walk(root):
    """Yield (path, lstat) of everything below root, in a stable order."""
    for base, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(base, name)
            yield path, os.lstat(path)


def tree_size(root):
    files = size = 0
    for _, st in walk(root):
        if stat.S_ISREG(st.st_mode):
            files, size = files + 1, size + st.st_size
    return files, size


def fresh(path):
    in_child(shutil.rmtree, str(path), True)
    path.mkdir(parents=True)
    return path
