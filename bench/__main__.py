"""`python -m bench [figure ...]`: measure, print tables, and leave JSON and plots in RESULTS (build/bench)."""

import argparse
import logging
import time
from importlib import import_module
from pathlib import Path

from bench import report, stack
from shared import settings

FIGURES = ("singles", "arrays", "averages", "transfer", "start", "growth", "devices", "alarms")


def main() -> None:
    """Measure the figures named, or all."""
    arguments = argparse.ArgumentParser(prog="bench", description=__doc__)
    arguments.add_argument("figures", nargs="*", metavar="figure", help=f"{', '.join(FIGURES)}; all without any")
    length = arguments.add_mutually_exclusive_group()
    length.add_argument("--quick", dest="scale", action="store_const", const=0.1, default=1.0, help="only to try it")
    length.add_argument(
        "--long", dest="scale", action="store_const", const=2.0, help="twice the rounds of twice the length"
    )
    chosen = arguments.parse_args()
    if unknown := set(chosen.figures) - set(FIGURES):
        arguments.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    folder = Path(settings.text("RESULTS", str(stack.WORKPLACE)))
    logging.disable(logging.INFO)
    for name in chosen.figures or FIGURES:
        started = time.monotonic()
        for figure in import_module(f"bench.{name}").measure(chosen.scale):
            report.publish(figure, folder)
        report.say(f"{name} took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
