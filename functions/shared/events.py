"""CloudEvents about rooms."""

from collections.abc import Mapping
from urllib.parse import quote

from cloudevents.http import CloudEvent


def room_event(
    kind: str, data: Mapping[str, object], identity: str, instant: str, extensions: Mapping[str, str]
) -> CloudEvent:
    """An event about the room that the data names, with the extensions.

    Source and id together are the event, so that a redelivery is known for one.
    """
    building, room = (quote(str(data[name]), safe="") for name in ("building_id", "room_id"))
    attributes = {
        **{name: _header(value) for name, value in extensions.items()},
        "specversion": "1.0",
        "type": kind,
        "source": _header(f"/buildings/{building}/rooms/{room}"),
        "id": identity,
        "time": instant,
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes, data)


def _header(value: str) -> str:
    """The value of an attribute as a header holds it (CloudEvents HTTP binding, 3.1.3.2); the SDK leaves that to us."""
    return quote(value, safe="!#$&'()*+,/:;<=>?@[\\]^`{|}")
