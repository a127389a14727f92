"""A device: measures, keeps what it measured in a file, and sends it until it is acknowledged. Needs Python only.

python3 device.py http://localhost:8080/v1/temperature B1 104 --every 5
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

SENSOR = Path("/sys/class/thermal/thermal_zone0/temp")
"""Thousandths of a degree, as Linux shows many sensors; put the path of yours here."""
LONGEST_PAUSE_SECONDS = 3600
MOST = 1000
"""Readings of a request; the function takes up to 10,000."""


def measure() -> float:
    """The temperature in degrees Celsius, of the sensor or, without one, made up."""
    try:
        return int(SENSOR.read_text()) / 1000
    except OSError:
        return 20 + time.time() % 60 / 30


def send(url: str, token: str, readings: list[str]) -> tuple[list[str], float]:
    """Send readings; return those that are to be sent again, and after how many seconds."""
    headers = {"Content-Type": "application/x-ndjson"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, "\n".join(readings).encode(), headers)
    try:
        status, answer, retry_after = post(request)
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}", file=sys.stderr)
        return readings, 5
    # Behind a redirect a page may answer 200, and has stored nothing.
    if status == 201:
        return [], 0
    if status in {400, 422} and (broken := faulty(answer)):
        # Nothing of the request is stored. What breaks a rule never will be; the others are sent without it.
        print(f"given up: {answer}", file=sys.stderr)
        return [reading for index, reading in enumerate(readings) if index not in broken], 0
    print(f"{status}: {answer}", file=sys.stderr)
    return readings, pause(retry_after)


def post(request: urllib.request.Request) -> tuple[int, str, str]:
    """The status of the answer, what is in a refusal, and its header Retry-After. Raises OSError or HTTPException."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, "this is no acknowledgement, which is 201", ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), error.headers.get("Retry-After", "")


def pause(retry_after: str) -> float:
    """The seconds that a header Retry-After asks for, by their number or by a date; a minute where it says neither."""
    if retry_after.isdecimal():
        seconds = float(retry_after)
    else:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            seconds = 60
    # A wrong clock somewhere may ask for years.
    return min(max(seconds, 1), LONGEST_PAUSE_SECONDS)


def faulty(answer: str) -> set[int]:
    """Which readings of a request an answer names as faulty."""
    try:
        return {fault["index"] for fault in json.loads(answer).get("errors", [])}
    except (ValueError, AttributeError, TypeError, KeyError):
        # It is not from the function, but from something in between.
        return set()


def keep(readings: list[str], file: Path) -> None:
    """Have the file hold the readings, whatever happens meanwhile, a loss of power too."""
    new = file.with_suffix(".new")
    with new.open("w") as output:
        output.writelines(f"{reading}\n" for reading in readings)
        output.flush()
        os.fsync(output.fileno())
    new.replace(file)
    # The new name is on the disk when the folder is.
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def kept(file: Path) -> list[str]:
    """The readings that the file holds, without what is no reading: a line that somebody else cut, say."""
    readings = []
    for line in file.read_text(errors="replace").splitlines() if file.exists() else []:
        try:
            json.loads(line)
            readings.append(line)
        except ValueError:
            print(f"given up: {line!r} is no reading", file=sys.stderr)
    return readings


def main() -> None:
    """Measure and send for ever, or `--count` times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("building_id")
    parser.add_argument("room_id")
    parser.add_argument("--every", type=float, default=30, help="seconds between two readings")
    parser.add_argument("--count", type=int, help="readings after which to stop, once all are sent")
    parser.add_argument("--file", type=Path, default=Path("unsent.ndjson"), help="what is not acknowledged yet")
    options = parser.parse_args()
    token = os.environ.get("TOKEN", "")

    # What an earlier run did not get rid of comes first.
    unsent = kept(options.file)
    measured, next_reading, next_attempt = 0, time.monotonic(), 0.0
    while unsent or options.count is None or measured < options.count:
        if time.monotonic() >= next_reading and (options.count is None or measured < options.count):
            reading = {
                "building_id": options.building_id,
                "room_id": options.room_id,
                "temperature": round(measure(), 2),
                "timestamp": datetime.now(UTC).isoformat(),
            }
            unsent.append(json.dumps(reading))
            # On the disk before it is sent: a loss of power loses nothing, and sending twice stores once.
            keep(unsent, options.file)
            measured += 1
            next_reading += options.every
        if unsent and time.monotonic() >= next_attempt:
            again, pause = send(options.url, token, unsent[:MOST])
            unsent = again + unsent[MOST:]
            keep(unsent, options.file)
            next_attempt = time.monotonic() + pause
        time.sleep(max(0.01, min(next_reading - time.monotonic(), 1)))


if __name__ == "__main__":
    main()
