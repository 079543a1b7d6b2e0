"""How to drive each tool: one table, so that a new peer is a few lines.

Argument and environment templates may use
    {exe}     executable            {repo}   repository directory (absolute)
    {src}     directory to back up, relative to the working directory
    {target}  empty restore directory (absolute; also restore's cwd)
    {cache}   per-tool, per-run cache and configuration directory
    {seq}     number of the latest backup, 1-based (for tools that name archives)

Tools run with their default settings, but for "sparse": flags for restoring a file
with holes, where "help" shows that this version has them. "open" lists an empty repository: what it
takes is deriving the key and starting up, which every other command pays too.
"""

import subprocess

PASSWORD = "benchmark-password"

ADAPTERS = {
    "restic": {
        "exe": "restic",
        "env": {"RESTIC_REPOSITORY": "{repo}", "RESTIC_PASSWORD": PASSWORD,
                "RESTIC_CACHE_DIR": "{cache}"},
        "version": ["{exe}", "version"],
        "init": ["{exe}", "init"],
        "open": ["{exe}", "snapshots"],
        "backup": ["{exe}", "backup", "{src}"],
        "restore": ["{exe}", "restore", "latest", "--target", "{target}"],
        "check": ["{exe}", "check", "--read-data"],
        "help": ["{exe}", "restore", "--help"],
        "sparse": ["--sparse"],
    },
    "rustic": {
        "exe": "rustic",
        "env": {"RUSTIC_REPOSITORY": "{repo}", "RUSTIC_PASSWORD": PASSWORD,
                "RUSTIC_CACHE_DIR": "{cache}", "RUSTIC_NO_PROGRESS": "true"},
        "version": ["{exe}", "--version"],
        "init": ["{exe}", "init"],
        "open": ["{exe}", "snapshots"],
        "backup": ["{exe}", "backup", "{src}"],
        "restore": ["{exe}", "restore", "latest", "{target}"],
        "check": ["{exe}", "check", "--read-data"],
        "help": ["{exe}", "restore", "--help"],
        "sparse": ["--sparse", "by-content"],
    },
    "borg": {
        "exe": "borg",
        "env": {"BORG_REPO": "{repo}", "BORG_PASSPHRASE": PASSWORD,
                "BORG_BASE_DIR": "{cache}"},
        "version": ["{exe}", "--version"],
        "init": ["{exe}", "init", "--encryption", "repokey-blake2"],
        "open": ["{exe}", "list"],
        "backup": ["{exe}", "create", "::b{seq}", "{src}"],
        "restore": ["{exe}", "extract", "::b{seq}"],
        "check": ["{exe}", "check", "--verify-data"],
        "help": ["{exe}", "extract", "--help"],
        "sparse": ["--sparse"],
    },
    "muster": {
        "exe": "muster",
        "env": {"MUSTER_REPOSITORY": "{repo}", "MUSTER_PASSWORD": PASSWORD,
                "MUSTER_CACHE_DIR": "{cache}"},
        "version": ["{exe}", "--version"],
        "init": ["{exe}", "repo", "init"],
        "open": ["{exe}", "repo", "snapshots"],
        "backup": ["{exe}", "repo", "backup", "{src}"],
        "restore": ["{exe}", "repo", "restore", "latest", "--target", "{target}"],
        "check": ["{exe}", "repo", "check", "--read-data"],
    },
}


def base(tool):
    """restic@0.18 is a build of restic."""
    return tool.split("@")[0]


def is_peer(tool):
    return base(tool) != "muster"


def adapter(tool, exes):
    """The adapter of a tool; exes maps tools to their executables."""
    a = dict(ADAPTERS[base(tool)])
    a["exe"] = exes.get(tool, a["exe"])
    return a


def sparse_flags(tool, exes):
    """What makes a tool restore holes as holes, if this version of it can be told to."""
    a = adapter(tool, exes)
    if "sparse" not in a:  # it does so anyway
        return []
    argv = [x.format(exe=a["exe"]) for x in a["help"]]
    out = subprocess.run(argv, capture_output=True, text=True)
    return a["sparse"] if a["sparse"][0] in out.stdout + out.stderr else []


def tool_version(tool, exes):
    a = adapter(tool, exes)
    argv = [x.format(exe=a["exe"]) for x in a["version"]]
    try:
        out = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return (out.stdout or out.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired) as e:
        return f"unavailable ({type(e).__name__})"
