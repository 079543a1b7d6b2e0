"""The data that is backed up: generated from a seed, edited by 1 %, put back.

The same seed and scale give the same bytes, modes and times on every machine, so
two people can compare their figures; `system` and `database` alone are made of this
machine.
"""

import json
import os
import random
import shutil
import stat
import time
import zlib
from pathlib import Path
from typing import Callable, NamedTuple

from database import edit_database, make_database, revert_database
from sparse import edit_sparse, make_sparse, revert_sparse
from trees import GIB, MIB, fresh, in_child, tree_size, walk

SYSTEM_ROOTS = ("/usr/lib", "/usr/share")


def word_table(rng):
    """65,536 words drawn Zipf-like from a 12,000-word vocabulary.

    Mapping random 16-bit numbers through the table makes text-like data
    (about 3:1 under zstd) at memory speed.
    """
    letters = b"etaoinshrdlucmfwypvbgkjqxz"
    weights = [1 / (i + 2) for i in range(26)]
    vocab = [bytes(rng.choices(letters, weights, k=rng.randint(2, 10))) for _ in range(12000)]
    zipf = [1 / (i + 3) for i in range(len(vocab))]
    ends = [b" "] * 12 + [b", ", b". ", b".\n", b"\n", b'": "', b"();\n    "]
    return [w + rng.choice(ends) for w in rng.choices(vocab, zipf, k=65536)]


class Maker:
    """Writes deterministic files with deterministic modes and mtimes."""

    def __init__(self, src, seed):
        self.src, self.rng, self.n = Path(src), random.Random(seed), 0
        self.table = word_table(self.rng)

    def text(self, size):
        words = memoryview(self.rng.randbytes(size // 2 & ~1 or 2)).cast("H")
        data = b"".join(map(self.table.__getitem__, words))
        return data[:size]

    def noise(self, size):
        return self.rng.randbytes(size)

    def log_uniform(self, lo, hi):
        return int(lo * (hi / lo) ** self.rng.random())

    def write(self, rel, size, make):
        path = self.src / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as f:
            left = size
            while left:
                part = make(min(left, MIB))
                f.write(part)
                left -= len(part)
        self.stamp(path)
        return path

    def stamp(self, path):
        self.n += 1
        os.chmod(path, (0o644, 0o644, 0o600, 0o755)[self.n % 4])
        t = (1_700_000_000 + 37 * self.n) * 10**9 + self.n * 1_000_003 % 10**9
        os.utime(path, ns=(t, t))

    def finish(self):
        """Directory mtimes, deepest first."""
        for base, _, _ in os.walk(self.src, topdown=False):
            t = (1_600_000_000 + zlib.crc32(os.path.relpath(base, self.src).encode()) % 10**7) * 10**9
            os.utime(base, ns=(t, t))


def make_mixed(src, seed, scale):
    """2 GiB: 40% text, 40% incompressible, 20% near-duplicates of those."""
    m, total = Maker(src, seed), int(2 * GIB * scale)
    made = []
    for kind, make, lo, hi in (("text", m.text, 100_000, 5_000_000),
                               ("binary", m.noise, 1_000_000, 200_000_000)):
        left = int(total * 0.4)
        while left > 0:
            size = min(m.log_uniform(lo, hi), max(left, lo))
            made.append((m.write(f"{kind}/{len(made) % 16:02d}/f{len(made):05d}", size, make), size))
            left -= size
    left, i = int(total * 0.2), 0
    while left > 0:
        path, size = m.rng.choice(made)
        if size > max(left, 5_000_000):
            continue
        copy = m.src / f"neardup/{i % 16:02d}/f{i:05d}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray(path.read_bytes())
        for _ in range(3):  # insert, overwrite and delete a few bytes
            at = m.rng.randrange(len(data))
            data[at:at] = m.noise(m.rng.randint(1, 2000))
            at = m.rng.randrange(len(data))
            data[at:at + 64] = m.noise(min(64, len(data) - at))
            at = m.rng.randrange(len(data))
            del data[at:at + m.rng.randint(1, 500)]
        copy.write_bytes(data)
        m.stamp(copy)
        left, i = left - size, i + 1
    m.finish()


def make_small(src, seed, scale):
    """50,000 files of 200 B - 20 KB (log-uniform) in 1,000 nested directories."""
    m = Maker(src, seed)
    for i in range(max(1, int(50_000 * scale))):
        d = i % 1000
        make = m.noise if i % 5 == 0 else m.text
        m.write(f"{d // 100}/{d // 10 % 10}/{d % 10}/f{i:05d}", m.log_uniform(200, 20_000), make)
    m.finish()


def make_system(src, seed, scale):
    """Copy of this machine's system trees, thinned by path hash to ~2 GiB."""
    cap = 2 * GIB * scale
    total = sum(tree_size(r)[1] for r in SYSTEM_ROOTS)
    keep = min(1.0, cap / max(total, 1)) * 2**32
    dirs = []
    for root in SYSTEM_ROOTS:
        for base, _, files in os.walk(root):
            out = os.path.join(src, base.lstrip("/"))
            os.makedirs(out, exist_ok=True)
            dirs.append((base, out))
            for name in sorted(files):
                path = os.path.join(base, name)
                mode = os.lstat(path).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                    continue
                if zlib.crc32(os.fsencode(path), seed) < keep:
                    shutil.copy2(path, os.path.join(out, name), follow_symlinks=False)
    for base, out in reversed(dirs):
        shutil.copystat(base, out)


def make_million(src, seed, scale):
    """A million files of 0 to 4 KiB in 1,000 folders."""
    m = Maker(src, seed)
    n_files = max(1000, int(1_000_000 * scale))
    page = m.text(MIB)
    for i in range(n_files):
        d, size = i % 1000, m.rng.randrange(4097)
        path = m.src / f"{d // 100}/{d // 10 % 10}/{d % 10}/f{i:06d}"
        if i < 1000:
            path.parent.mkdir(parents=True, exist_ok=True)
        at = m.rng.randrange(MIB - 4096)
        with open(path, "wb", buffering=0) as f:
            f.write(b"%d\n" % i + page[at:at + size] if size > 8 else page[:size])
        m.stamp(path)
    m.finish()


def dataset(name, opts):
    """Generate the dataset, or reuse one made with the same parameters."""
    home = opts.work / "data" / name
    src, meta_file = home / "src", home / "meta.json"
    want = {"seed": opts.seed, "scale": opts.scale}
    if meta_file.exists():
        meta = json.loads(meta_file.read_text())
        if {k: meta[k] for k in want} == want:
            DATASETS[name].revert(home)  # in case an earlier run was interrupted
            return src, meta
    t0 = time.time()
    fresh(home)
    src.mkdir()
    in_child(DATASETS[name].make, str(src), opts.seed, opts.scale)
    files, size = in_child(tree_size, str(src))
    meta = {**want, "files": files, "bytes": size}
    meta_file.write_text(json.dumps(meta))
    print(f"generated {name}: {files} files, {size / MIB:.0f} MiB in {time.time() - t0:.0f} s", flush=True)
    return src, meta


def edit(home, seed):
    """Edit 1% of the files in place (always including the largest one).

    Originals are kept in home/saved, listed in home/saved/list.json.
    """
    home = Path(home)
    saved = home / "saved"
    rng = random.Random(seed + 1)
    files = [(p, st.st_size) for p, st in walk(home / "src") if stat.S_ISREG(st.st_mode)]
    largest = max(files, key=lambda f: f[1])[0]
    picked = rng.sample([p for p, _ in files], max(1, len(files) // 100))
    if largest not in picked:
        picked[0] = largest
    saved.mkdir()
    for i, path in enumerate(picked):
        shutil.copy2(path, saved / str(i))
    (saved / "list.json").write_text(json.dumps(picked))
    for i, path in enumerate(picked):
        st = os.lstat(path)
        data = bytearray(Path(path).read_bytes())
        if path == largest:  # inserts in the middle of a big file
            for q in (3, 2, 1):
                at = len(data) * q // 4
                data[at:at] = rng.randbytes(1000 * q + 7)
        elif i % 3 == 0:  # insert in the middle
            data[len(data) // 2:len(data) // 2] = rng.randbytes(321)
        elif i % 3 == 1:  # overwrite in the middle
            at = len(data) // 2
            data[at:at + 100] = rng.randbytes(100)
        else:  # append
            data += rng.randbytes(777)
        with open(path, "r+b") as f:
            f.write(data)
        t = st.st_mtime_ns + 3600 * 10**9
        os.utime(path, ns=(t, t))
    return len(picked)


def revert_edits(home):
    saved = Path(home) / "saved"
    listing = saved / "list.json"
    if listing.exists():
        for i, path in enumerate(json.loads(listing.read_text())):
            shutil.copyfile(saved / str(i), path)
            shutil.copystat(saved / str(i), path)
    shutil.rmtree(saved, ignore_errors=True)


class Dataset(NamedTuple):
    """How one is made in a folder (path, seed, scale), changed, and put back (its home)."""

    make: Callable
    edit: Callable = edit
    revert: Callable = revert_edits


DATASETS = {
    "mixed": Dataset(make_mixed),
    "small": Dataset(make_small),
    "system": Dataset(make_system),
    "database": Dataset(make_database, edit_database, revert_database),
    "sparse": Dataset(lambda *args: make_sparse(*args, Maker), edit_sparse, revert_sparse),
    "million": Dataset(make_million),
}
