"""What pieces of PostgreSQL's pages cost, compressed: the figures of docs/decisions/0026.

    page_cuts.py BEFORE AFTER

BEFORE and AFTER are the same table's or index's file (base/OID/NUMBER) of the dataset `database`,
in `src` and in `after`.  Wants `zstandard` from PyPI.  Prints, for each way of cutting, the bytes
per piece at first and of those that the update changed, and how many those are in a thousand.
"""

import random
import sys
from pathlib import Path

import zstandard

PAGE = 8192
BYTES_MAX = 256 << 20
SAMPLE = 1000
QUICK = zstandard.ZstdCompressor(level=2)
# As crates/repository/src/compression.rs, `Compressor::for_records`.
RECORDS = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(
    window_log=12, chain_log=10, hash_log=10, search_log=2, min_match=3, target_length=16,
    strategy=zstandard.STRATEGY_BTOPT))

# How a stretch of this many bytes is cut, and which piece is compressed as records are.
CUTS = {
    "1 page": (PAGE, [PAGE], None),
    "2 pages": (2 * PAGE, [2 * PAGE], None),
    "4 pages": (4 * PAGE, [4 * PAGE], None),
    "half pages": (PAGE, [4096, PAGE], None),
    "half pages, records": (PAGE, [4096, PAGE], 4096),
    "at 2 KiB, records": (PAGE, [2048, PAGE], 2048),
    "at 3 KiB, records": (PAGE, [3072, PAGE], 3072),
}


def read(path):
    with Path(path).open("rb") as file:
        return file.read(BYTES_MAX)


def main():
    before, after = (read(path) for path in sys.argv[1:3])
    length = min(len(before), len(after))
    print("| cut | pieces of a stretch | at first | changed | changed of 1000 |")
    print("|---|---:|---:|---:|---:|")
    for name, (period, ends, records) in CUTS.items():
        starts = random.Random(1).sample(range(0, length - period + 1, period), min(SAMPLE, length // period))
        first, changed = [], []
        for start in starts:
            for begin, end in zip([0, *ends], ends):
                compressor = RECORDS if end == records else QUICK
                old, new = (data[start + begin:start + end] for data in (before, after))
                first.append(len(compressor.compress(old)))
                if old != new:
                    changed.append(len(compressor.compress(new)))
        mean = lambda sizes: round(sum(sizes) / len(sizes)) if sizes else 0
        share = round(1000 * len(changed) / len(first))
        print(f"| {name} | {len(ends)} | {mean(first)} | {mean(changed)} | {share} |")


if __name__ == "__main__":
    main()
