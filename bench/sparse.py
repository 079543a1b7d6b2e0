"""A disk image of 20 GB of which 1 GB is data: what a virtual machine leaves on its host."""

import os
import random
import shutil
from pathlib import Path

from trees import GIB, MIB

IMAGE_GIB, DATA_GIB = 20, 1
BLOCK = 64 * 1024
CHANGED_SHARE = 0.01


def image(src):
    return Path(src) / "disk.img"


def make_sparse(src, seed, scale, maker):
    """Runs of 64 KiB to 8 MiB, of text and noise in turn, far apart in a file that is full of holes."""
    m = maker(src, seed)
    left, size = int(DATA_GIB * GIB * scale), int(IMAGE_GIB * GIB * scale)
    with open(image(src), "wb") as f:
        f.truncate(size)
        while left > 0:
            length = min(m.log_uniform(BLOCK, 8 * MIB), left)
            f.seek(m.rng.randrange(max(1, (size - length) // BLOCK)) * BLOCK)
            make = m.text if m.rng.random() < 0.5 else m.noise
            for part in range(0, length, MIB):
                f.write(make(min(MIB, length - part)))
            left -= length
    m.stamp(image(src))
    m.finish()


def data_blocks(path):
    """Offsets of the blocks that hold data."""
    with open(path, "rb") as f:
        end, at = os.fstat(f.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            hole = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            yield from range(at, hole, BLOCK)
            at = hole


def edit_sparse(home, seed):
    """Overwrite 1% of the blocks that hold data; keep what was there."""
    path, saved = image(Path(home) / "src"), Path(home) / "saved"
    rng = random.Random(seed + 1)
    blocks = list(data_blocks(path))
    picked = sorted(rng.sample(blocks, max(1, int(len(blocks) * CHANGED_SHARE))))
    st = os.stat(path)
    saved.mkdir()
    (saved / "mtime").write_text(str(st.st_mtime_ns))
    with open(path, "r+b") as f:
        for at in picked:
            f.seek(at)
            old = f.read(BLOCK)
            (saved / str(at)).write_bytes(old)
            f.seek(at)
            f.write(rng.randbytes(len(old)))
    later = st.st_mtime_ns + 3600 * 10**9
    os.utime(path, ns=(later, later))
    return len(picked)


def revert_sparse(home):
    """Put back what the edit overwrote, also when it did not come to its end."""
    path, saved = image(Path(home) / "src"), Path(home) / "saved"
    if not (saved / "mtime").exists():
        return
    mtime = int((saved / "mtime").read_text())
    with open(path, "r+b") as f:
        for old in saved.iterdir():
            if old.name != "mtime":
                f.seek(int(old.name))
                f.write(old.read_bytes())
    os.utime(path, ns=(mtime, mtime))
    shutil.rmtree(saved)
