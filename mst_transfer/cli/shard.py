"""``mst shard PHOTOS OUT``: photos as tar shards with an index."""

import argparse
import signal
import sys
from collections.abc import Sequence

from mst_transfer.runs.options import whole_number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status: 130 if Ctrl-C or SIGTERM has stopped it."""
    parser = argparse.ArgumentParser(
        prog="mst shard",
        usage="mst shard PHOTOS OUT [options]\n       mst shard --index OUT\n       mst shard --verify OUT",
        description="Write a folder of photos as tar shards in WebDataset's layout, with an index for pre-training; or "
        "index, or verify, shards that are there. Stopped, the same command goes on.",
    )
    parser.add_argument("photos", nargs="?", help="folder of photos, which may lie in sub-folders")
    parser.add_argument("out", nargs="?", help="folder of the shards")
    parser.add_argument("--index", metavar="OUT", help="index the images in shards that others have made")
    parser.add_argument("--verify", metavar="OUT", help="read all of the shards, compare them with their index")
    parser.add_argument("--shard-mb", type=whole_number(1), default=512, metavar="MB", help="of 10^6 bytes (512)")
    parser.add_argument("--workers", type=whole_number(1), default=4, metavar="N", help="threads (4)")
    args = parser.parse_args(argv)
    if [bool(args.out), bool(args.index), bool(args.verify)].count(True) != 1 or bool(args.photos) != bool(args.out):
        parser.error("give PHOTOS and OUT, or --index OUT, or --verify OUT")
    from mst_transfer.datasets.shard_writer import index_shards, verify_shards, write_shards
    from mst_transfer.runs import stop, work_dir

    if args.verify:
        faults = verify_shards(args.verify, args.workers)
        print("\n".join(faults or [f"{args.verify}: all shards are as their index says"]))
        return int(bool(faults))
    out = args.index or args.out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work_dir.lock(out)
        if args.index:
            print(index_shards(out, args.workers))
        else:
            print(write_shards(args.photos, out, args.shard_mb * 10**6, args.workers))
        return 0
    except KeyboardInterrupt:
        print(f"mst shard: stopped; what is finished in {out} is kept, and the same command goes on", file=sys.stderr)
        return stop.INTERRUPTED
    finally:
        work_dir.release(out)
