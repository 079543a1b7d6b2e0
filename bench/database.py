"""A PostgreSQL data folder, before and after an update of a few rows.

Made by the PostgreSQL of this machine, so its bytes differ from one machine and run to
the next (system identifier, transaction times, WAL); row counts and the rows that are
updated do not.  Both states lie side by side, and an edit exchanges them.
"""

import glob
import os
import pwd
import shutil
import subprocess
from pathlib import Path

SCALE = 100  # pgbench's: 10 million accounts, 1.5 GB
UPDATED_SHARE = 0.002


class Server:
    """A PostgreSQL server on a folder, reached through a socket beside it."""

    def __init__(self, folder):
        self.folder, self.bin = Path(folder), newest_binaries()
        self.sockets = self.folder.parent / "sockets"

    def run(self, program, *args):
        subprocess.run([*as_server_user(), str(self.bin / program), *args], check=True,
                       stdout=subprocess.DEVNULL, cwd="/")

    def init(self):
        own(self.folder)
        own(self.sockets)
        self.run("initdb", "-D", str(self.folder), "-U", "bench", "-A", "trust", "--no-sync")

    def __enter__(self):
        options = f"-k {self.sockets} -c listen_addresses='' -c fsync=off"
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-l", str(self.sockets / "log"), "-o", options, "start")
        return self

    def __exit__(self, *_):
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-m", "fast", "stop")

    def sql(self, *statements):
        commands = [x for s in statements for x in ("-c", s)]
        self.run("psql", "-h", str(self.sockets), "-U", "bench", "-d", "postgres", "-qX", *commands)

    def fill(self, scale):
        self.run("pgbench", "-h", str(self.sockets), "-U", "bench", "-i", "-q", "-s", str(scale), "postgres")


def newest_binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
    if not found:
        raise RuntimeError("the dataset `database` needs PostgreSQL: apt-get install postgresql")
    return Path(found[-1])


def as_server_user():
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


def own(folder):
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)


def make_database(src, seed, scale):
    """pgbench's tables in src; the same with 0.2% of the accounts updated beside it."""
    src = Path(src)
    pgbench_scale = max(1, round(SCALE * scale))
    accounts = 100_000 * pgbench_scale
    server = Server(src.parent / "after")
    server.init()
    with server:
        server.fill(pgbench_scale)
        server.sql("VACUUM ANALYZE", "CHECKPOINT")
    src.rmdir()
    subprocess.run(["cp", "-a", str(server.folder), str(src)], check=True)
    with server:
        server.sql(f"SELECT setseed({(seed % 1000) / 1000})",
                   "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN "
                   f"(SELECT 1 + (random() * {accounts - 1})::int FROM generate_series(1, "
                   f"{round(accounts * UPDATED_SHARE)}))",
                   "CHECKPOINT")
    shutil.rmtree(server.sockets)


def edit_database(home, _seed):
    """The updated state takes the place of the first one; its rows were chosen when it was made."""
    exchange(Path(home), "src", "before", "after")


def revert_database(home):
    """Put the first state back, if an edit took it away."""
    if (Path(home) / "before").exists():
        exchange(Path(home), "src", "after", "before")


def exchange(home, place, to, source):
    (home / place).rename(home / to)
    (home / source).rename(home / place)
