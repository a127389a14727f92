// Numbers, times and names as the reader writes them.

const temperatures = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const counts = new Intl.NumberFormat();
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const LONG_UNITS = [["year", 365.25 * 86400], ["month", 30.5 * 86400], ...UNITS];

const formats = {};
function format(date, options) {
  const name = JSON.stringify(options);
  formats[name] ??= new Intl.DateTimeFormat(undefined, options);
  return formats[name].format(date);
}

export const temperature = (value) => `${temperatures.format(value)} °C`;
export const bare = (value) => temperatures.format(value);
export const count = (value) => counts.format(value);

const CLOCK = { hour: "2-digit", minute: "2-digit" };
const SECONDS = { ...CLOCK, second: "2-digit" };
const DATE = { day: "numeric", month: "short" };

export const clock = (date, seconds) => format(date, seconds ? SECONDS : CLOCK);
export const day = (date) => format(date, DATE);
export const month = (date) => format(date, { month: "short", year: "numeric" });
export const full = (date) => format(date, { dateStyle: "medium", timeStyle: "medium" });

export function span(start, end, seconds) {
  const sameDay = start.toDateString() === end.toDateString();
  const first = `${day(start)}, ${clock(start, seconds)}`;
  return `${first} – ${sameDay ? "" : `${day(end)}, `}${clock(end, seconds)}`;
}

export function ago(date, now) {
  const seconds = Math.min(0, (date - now) / 1000);
  const [unit, length] = LONG_UNITS.find(([, length]) => -seconds >= length) ?? LONG_UNITS.at(-1);
  return relative.format(Math.round(seconds / length), unit);
}

export function duration(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds % length === 0);
  const number = seconds / length;
  return `${number} ${unit}${number === 1 ? "" : "s"}`;
}

// "per minute", not "per 1 minute"
export const width = (seconds) => duration(seconds).replace(/^1 /, "");

export function zone(date) {
  const part = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" }).formatToParts(date);
  const offset = part.find(({ type }) => type === "timeZoneName").value.replace("GMT", "UTC");
  return `${Intl.DateTimeFormat().resolvedOptions().timeZone} (${offset})`;
}

// Names are anybody's: isolated, so that those written from right to left do not turn over what is around them.
const isolated = (text) => `\u2068${text}\u2069`;
export const roomText = ({ building, room }) => (room === null ? `${isolated(building)}, all rooms` : `${isolated(building)} / ${isolated(room)}`);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function roomName({ building, room }) {
  const names = element("span", { className: "name", title: roomText({ building, room }) });
  names.append(element("bdi", { textContent: building }));
  if (room === null) names.append(", all rooms");
  else names.append(" / ", element("bdi", { textContent: room }));
  return names;
}
