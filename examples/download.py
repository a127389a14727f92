"""Downloads readings into a file, and goes on where a download broke off, also if it is run again.

Needs Python only. Ask with the same arguments then, and one at a time for a file.

python3 download.py http://localhost:8080 readings.csv 2024-12-01T00:00:00Z 2025-01-01T00:00:00Z B1 --room 101
"""

import argparse
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

FORMATS = {".csv": "csv", ".ndjson": "ndjson"}
PASSING = {408, 425, 429}
"""Statuses below 500 that say nothing about the question: it may be answered when it is asked again."""


def last_line(file: Path) -> bytes:
    """The last whole line of the file, behind which everything is cut off; nothing if there is none."""
    last, line, end = b"", b"", 0
    with file.open("r+b") as content:
        for part in content:
            line += part
            # In CSV a name may hold the end of a line, within quotation marks.
            if part.endswith(b"\n") and (file.suffix != ".csv" or line.count(b'"') % 2 == 0):
                last, line, end = line, b"", end + len(line)
        content.truncate(end)
    return last


def download(url: str, query: dict[str, str], token: str, file: Path) -> None:
    """Append what is not in the file yet. Raises OSError or HTTPException if that breaks off."""
    file.touch()
    after = last_line(file)
    if after.strip() == b"building_id,room_id,timestamp,temperature":
        # Of the header only: it comes again.
        os.truncate(file, 0)
    elif after:
        query = {**query, "after": after.decode()}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}?{urllib.parse.urlencode(query)}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer, file.open("ab") as output:
        # Behind a redirect a page may answer 200, and has no readings.
        if not (kind := answer.headers.get_content_type()).endswith(query["format"]):
            sys.exit(f"{answer.url} answered with {kind}, not with readings")
        shutil.copyfileobj(answer, output)
        if answer.length:
            # The connection ended before the answer did, which urllib does not say.
            raise http.client.IncompleteRead(b"", answer.length)


def main() -> None:
    """Download until the file is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path, help="ends in .csv or .ndjson")
    parser.add_argument("start")
    parser.add_argument("end")
    parser.add_argument("building_id")
    parser.add_argument("--room")
    options = parser.parse_args()
    if options.file.suffix not in FORMATS:
        parser.error("the name of the file must end in .csv or .ndjson")
    query = {
        "building_id": options.building_id,
        "start": options.start,
        "end": options.end,
        "format": FORMATS[options.file.suffix],
    }
    if options.room is not None:
        query["room_id"] = options.room
    url = f"{options.address.rstrip('/')}/v1/temperature/readings"
    for attempt in range(10):
        try:
            return download(url, query, os.environ.get("TOKEN", ""), options.file)
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
            if error.code < 500 and error.code not in PASSING:
                sys.exit(f"{error.code}: {answer}")
            print(f"{error.code}: {answer}", file=sys.stderr)
        except (OSError, http.client.HTTPException) as error:
            print(f"broken off: {error}", file=sys.stderr)
        time.sleep(min(2**attempt / 2, 30))
    sys.exit("given up; run it again to go on")


if __name__ == "__main__":
    main()
