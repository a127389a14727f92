// Numbers, times and names as the reader writes them.

import { now } from "./api.js";
import { ahead, current, dayOf, wall } from "./zones.js";

const MINUTE = 60e3;
const DIGITS = 2;
const MOST_DIGITS = 15;
const counts = new Intl.NumberFormat();
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const LONG_UNITS = [["year", 365.25 * 86400], ["month", 30.5 * 86400], ...UNITS];

const formats = {};
function format(date, options) {
  const name = current() + JSON.stringify(options);
  formats[name] = formats[name] ?? new Intl.DateTimeFormat(undefined, { ...options, timeZone: current() });
  return together(formats[name].format(date));
}

const numbers = [];
function decimal(value, least, most = least) {
  const name = 16 * least + most;
  numbers[name] = numbers[name] ?? new Intl.NumberFormat(undefined, { minimumFractionDigits: least, maximumFractionDigits: most });
  // What is rounded to nothing has no sign.
  return numbers[name].format(Number(value.toFixed(most)) === 0 ? 0 : value);
}

// Times of languages that are written from right to left would take what is around them with them.
const together = (text) => (/[\u0590-\u08ff]/.test(text) ? isolated(text) : text);

const NOTHING = "–";
export const bare = (value) => (value === null ? NOTHING : decimal(value, DIGITS));
export const degrees = (value) => `${decimal(value, 0, MOST_DIGITS)}°`;
export const temperature = (value, digits = DIGITS) => (value === null ? NOTHING : `${decimal(value, digits)} °C`);
export const hours = (seconds) => `${decimal(seconds / 3600, 0, 1)}\u00a0h`;
export const degreeHours = (value) => `${decimal(value, 0, 1)} degree hours`;
export const count = (value) => counts.format(value);

// Two temperatures with as many digits as it takes to tell them apart.
export function apart(one, other) {
  let digits = DIGITS;
  while (one !== other && digits < MOST_DIGITS && decimal(one, digits) === decimal(other, digits)) digits += 1;
  return [temperature(one, digits), temperature(other, digits)];
}

const CLOCK = { hour: "2-digit", minute: "2-digit" };
const SECONDS = { ...CLOCK, second: "2-digit" };
const DATE = { day: "numeric", month: "short" };
const { calendar } = new Intl.DateTimeFormat().resolvedOptions();
const OUR_MONTHS = ["gregory", "buddhist", "japanese", "roc", "iso8601"];

// --- times --------------------------------------------------------------------------------------------------------

export function offset(date) {
  const minutes = Math.floor(ahead(date) / MINUTE);
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${minutes < 0 ? "-" : "+"}${String(hours).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
}

// The other instant at which clocks show the same, in the hour that comes twice when they are put back.
export function twin(date) {
  for (const hours of [-3, 3]) {
    const other = new Date(+date + ahead(date) - ahead(+date + hours * 60 * MINUTE));
    if (+other !== +date && wall(other) === wall(date)) return other;
  }
  return null;
}

export const time = (date, seconds) => format(date, seconds ? SECONDS : CLOCK);
export const clock = (date, seconds) => `${time(date, seconds)}${twin(date) ? ` (${offset(date)})` : ""}`;

// Of the reader's calendar: a year begins in March in that of Iran.
export const year = (date) => format(date, { year: "numeric" });
export const thisYear = (date) => year(date) === year(now());
export const day = (date, withYear = !thisYear(date)) => format(date, withYear ? { ...DATE, year: "numeric" } : DATE);
// A month of ours begins within one of another calendar.
export const month = (date) => (OUR_MONTHS.includes(calendar) ? format(date, { month: "short", year: "numeric" }) : day(date, true));
export const full = (date) => `${format(date, { dateStyle: "medium", timeStyle: "medium" })}${twin(date) ? ` (${offset(date)})` : ""}`;

export function span(start, end, seconds) {
  const sameDay = dayOf(start) === dayOf(end);
  const years = !thisYear(start) || !thisYear(end);
  const first = `${day(start, years)}, ${clock(start, seconds)}`;
  return `${first} – ${sameDay ? "" : `${day(end, years)}, `}${clock(end, seconds)}`;
}

export function ago(date, now) {
  const seconds = Math.min(0, (date - now) / 1000);
  const [unit, length] = LONG_UNITS.find(([, length]) => -seconds >= length) ?? LONG_UNITS[LONG_UNITS.length - 1];
  return together(relative.format(Math.round(seconds / length), unit));
}

export function duration(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds % length === 0);
  const number = seconds / length;
  return `${number} ${unit}${number === 1 ? "" : "s"}`;
}

// "per minute", not "per 1 minute"
const NAMES = { s: "second", m: "minute", h: "hour", d: "day", w: "week", mo: "month", y: "year" };
export function width(bucket) {
  const [, number, unit] = /^(\d+)(\w+)$/.exec(bucket);
  return number === "1" ? NAMES[unit] : `${number} ${NAMES[unit]}s`;
}

// The zone in which times are shown, with every offset that it has within the interval.
export function zone(start, end) {
  const samples = Array.from({ length: 61 }, (_, index) => offset(new Date(+start + ((end - start) * index) / 60)));
  return `${current()} (${[...new Set(samples)].join(", then ")})`;
}

// --- names --------------------------------------------------------------------------------------------------------

// Names are anybody's: isolated, so that those written from right to left do not turn over what is around them.
const isolated = (text) => `\u2068${text}\u2069`;
export const roomText = ({ building, room }) => (room === null ? `${isolated(building)}, all rooms` : `${isolated(building)} / ${isolated(room)}`);

// A property with a hyphen is an attribute; so is a role, of which Firefox has a property only since 2023.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
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

export function grouped(items, name) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(name(item))) groups.set(name(item), []);
    groups.get(name(item)).push(item);
  }
  return groups;
}

export function moment(timestamp, now) {
  const date = new Date(timestamp);
  return element("time", { dateTime: timestamp, title: full(date), textContent: ago(date, now) });
}
