"""Where a function sends CloudEvents, from its settings and those of Knative."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared import settings

_overrides = SchemaValidator(
    core_schema.typed_dict_schema(
        {
            "extensions": core_schema.typed_dict_field(
                core_schema.dict_schema(core_schema.str_schema(pattern="^[a-z0-9]+$"), core_schema.str_schema()),
                required=False,
            )
        }
    )
)


@dataclass(frozen=True, slots=True)
class Sink:
    """Where events go."""

    url: str
    """Empty if there is none."""
    token: str
    """Sent with each event, if there is one."""
    patience_seconds: int
    """How long it may take nothing before it is given up: SINK_PATIENCE."""
    extensions: Mapping[str, str]
    """Attributes of every event: those of K_CE_OVERRIDES, which Knative's SinkBinding sets."""

    @property
    def digest(self) -> str:
        """Stands for the sink in the database. The URL may hold a secret, and others read the database."""
        return sha256(self.url.encode()).hexdigest()


def load(name: str) -> Sink:
    """The sink of the settings that begin with the name: NAME_URL, unless Knative sets K_SINK, and NAME_TOKEN.

    Raises SettingError for settings that make no sense.
    """
    found, secret = url("K_SINK") or url(f"{name}_URL"), token(f"{name}_TOKEN")
    check_authorization(found, secret, f"{name}_TOKEN")
    return Sink(
        url=found,
        token=secret,
        patience_seconds=settings.number("SINK_PATIENCE", 30, least=1, most=600),
        extensions=_extensions(),
    )


def is_usable(url: str) -> bool:
    """Whether events can be sent there: to an http or https URL whose host and port can be such."""
    try:
        parts = urlsplit(url)
        # Both raise ValueError for what is none.
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and len(url.split()) == 1 and url.isprintable()


def is_on_this_machine(url: str) -> bool:
    """Whether the URL leads to this machine, for which no proxy is asked."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def url(name: str) -> str:
    """The URL that a setting is, empty if there is none. Raises SettingError for what is no such."""
    found = settings.text(name)
    if found and not is_usable(found):
        # The URL is not repeated: it may hold a secret.
        raise settings.SettingError(f"{name} must be an http or https URL, such as https://example.com/events")
    return found


def token(name: str) -> str:
    """The token that a setting is, empty if there is none. Raises SettingError for what no header can hold."""
    found = settings.text(name)
    if not (found.isascii() and found.isprintable()):
        raise settings.SettingError(f"{name} must be of ASCII characters, in one line")
    return found


def check_authorization(url: str, token: str, name: str) -> None:
    """Raise SettingError for a URL with a user where there is a token too, which the setting of that name is."""
    if token and "@" in urlsplit(url).netloc:
        raise settings.SettingError(
            f"{name} is set, and the URL that it is for has a user of its own (USER:PASSWORD@). Only one of them can be"
            " sent: take the other away"
        )


def _extensions() -> dict[str, str]:
    try:
        overrides: dict[str, dict[str, str]] = _overrides.validate_json(settings.text("K_CE_OVERRIDES", "{}"))
    except ValidationError:
        raise settings.SettingError(
            'K_CE_OVERRIDES must be JSON such as {"extensions": {"name": "value"}}, the names of a-z and 0-9 only'
        ) from None
    return overrides.get("extensions", {})
