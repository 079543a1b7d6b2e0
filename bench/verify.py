"""Compare a restored tree with its source: names, types, content, mode, mtime.

Written for the harness and independent of every tool, so that a fast restore that
left something out does not count.
"""

import os
import stat

from trees import MIB

# Reported, but in peers no failures: a symlink's own mtime, and the metadata of
# the backed-up directory itself (rustic does not store it).
TOLERATED = {"symlink mtime", "root mtime", "root mode"}


def same_content(a, b):
    with open(a, "rb", buffering=0) as fa, open(b, "rb", buffering=0) as fb:
        while True:
            x, y = fa.read(MIB), fb.read(MIB)
            if x != y:
                return False
            if not x:
                return True


def verify(src, target):
    """Compare a restored tree with its source; return {problem: count}, examples."""
    problems, examples = {}, []

    def bad(kind, path):
        problems[kind] = problems.get(kind, 0) + 1
        if problems[kind] <= 3:
            examples.append(f"{kind}: {os.path.relpath(path, src)}")

    def compare(a, b):
        sa, sb = os.lstat(a), os.lstat(b)
        if stat.S_IFMT(sa.st_mode) != stat.S_IFMT(sb.st_mode):
            return bad("type", a)
        link = stat.S_ISLNK(sa.st_mode)
        what = "symlink " if link else "root " if a == src else ""
        if not link and stat.S_IMODE(sa.st_mode) != stat.S_IMODE(sb.st_mode):
            bad(what + "mode", a)
        if sa.st_mtime_ns != sb.st_mtime_ns:
            bad(what + "mtime", a)
        if link and os.readlink(a) != os.readlink(b):
            bad("symlink", a)
        elif stat.S_ISREG(sa.st_mode) and (sa.st_size != sb.st_size or not same_content(a, b)):
            bad("content", a)
        elif stat.S_ISDIR(sa.st_mode):
            na, nb = set(os.listdir(a)), set(os.listdir(b))
            for n in na - nb:
                bad("missing", os.path.join(a, n))
            for n in nb - na:
                bad("extra", os.path.join(a, n))
            for n in na & nb:
                compare(os.path.join(a, n), os.path.join(b, n))

    # Tools restore either the relative or the absolute source path.
    for root in (os.path.join(target, os.path.basename(src)), os.path.join(target, src.lstrip("/"))):
        if os.path.isdir(root):
            compare(src, root)
            break
    else:
        bad("missing", src)
    return {"problems": problems, "examples": examples}
