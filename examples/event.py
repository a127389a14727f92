"""A reading as a CloudEvent, with the CloudEvents SDK: pip install 'cloudevents<2' requests.

python3 event.py http://localhost:8080/
"""

import sys
from datetime import UTC, datetime

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

reading = {
    "building_id": "B1",
    "room_id": "105",
    "temperature": 21.5,
    "timestamp": datetime.now(UTC).isoformat(),
}
event = CloudEvent(
    {
        "type": "dev.temperature.reading.v1",
        "source": "/buildings/B1/rooms/105",
        # The same for the same reading, however often it is sent.
        "id": f"{reading['timestamp']}/{reading['temperature']}",
    },
    reading,
)
headers, body = to_binary(event)
# A redirect would make it a GET, whose answer says nothing about the event.
answer = requests.post(sys.argv[1], headers=headers, data=body, timeout=30, allow_redirects=False)
print(answer.status_code, answer.text)
sys.exit(answer.status_code >= 300)
