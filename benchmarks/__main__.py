"""Runs the parts, each in a fresh process, and prints markdown.

> python -m benchmarks [part ...] [--quick]

The parts are head, distances, million, growth, preparation, metrics, scoring
and onnx. With --quick each is only tried: the figures mean nothing, and no
plot is written.
"""

import argparse

from benchmarks.measure import fresh, machine, run

PARTS = (
    "head",
    "distances",
    "million",
    "growth",
    "preparation",
    "metrics",
    "scoring",
    "onnx",
)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=str(PARTS))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"{part} is not one of {PARTS}")
    print(machine(), flush=True)
    for part in args.parts or PARTS:
        fresh(run, part, args.quick)


if __name__ == "__main__":
    main()
