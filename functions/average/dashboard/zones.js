// The time zone in which times are shown and chosen: the reader's own, or another one.

const MINUTE = 60e3;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
// The first one of 1970.
const MONDAY = 4 * DAY;
// Offsets change at whole quarters of an hour at most.
const QUARTER = 15 * MINUTE;
const MOST_KNOWN = 20e3;
const PARTS = { hourCycle: "h23", era: "short", year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };
// Chrome keeps the names that these had first.
const NAMES_OF_TODAY = {
  "Africa/Asmera": "Africa/Asmara",
  "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
  "America/Catamarca": "America/Argentina/Catamarca",
  "America/Coral_Harbour": "America/Atikokan",
  "America/Cordoba": "America/Argentina/Cordoba",
  "America/Godthab": "America/Nuuk",
  "America/Indianapolis": "America/Indiana/Indianapolis",
  "America/Jujuy": "America/Argentina/Jujuy",
  "America/Louisville": "America/Kentucky/Louisville",
  "America/Mendoza": "America/Argentina/Mendoza",
  "Asia/Calcutta": "Asia/Kolkata",
  "Asia/Katmandu": "Asia/Kathmandu",
  "Asia/Rangoon": "Asia/Yangon",
  "Asia/Saigon": "Asia/Ho_Chi_Minh",
  "Atlantic/Faeroe": "Atlantic/Faroe",
  "Europe/Kiev": "Europe/Kyiv",
  "Pacific/Enderbury": "Pacific/Kanton",
  "Pacific/Ponape": "Pacific/Pohnpei",
  "Pacific/Truk": "Pacific/Chuuk",
};

function made(zone) {
  return new Intl.DateTimeFormat("en-US", { ...PARTS, timeZone: zone, calendar: "gregory", numberingSystem: "latn" });
}

// The name that this browser has for a zone, null if it knows none.
function nameOf(zone) {
  try {
    return made(zone).resolvedOptions().timeZone;
  } catch {
    return null;
  }
}

// An older browser does not know it.
function ofToday(name) {
  const today = NAMES_OF_TODAY[name];
  return today && nameOf(today) ? today : name;
}

// The zone by the name that the API knows, whose capitals count; null if this browser knows none. Offsets are none that
// have a calendar.
export const named = (zone) => (/^[+-]/.test(zone) ? null : ofToday(nameOf(zone)));

// Chrome names one that it does not know Etc/Unknown, which it then does not take.
export const own = named(Intl.DateTimeFormat().resolvedOptions().timeZone) ?? "UTC";
let name = own;
let parts = made(own);
let known = new Map();

export const current = () => name;

// Shows and takes times of the zone from now on; null is the reader's own.
export function use(zone) {
  if ((zone ?? own) === name) return;
  name = zone ?? own;
  parts = made(name);
  known = new Map();
}

export const all = () => (Intl.supportedValuesOf ? ["UTC", ...Intl.supportedValuesOf("timeZone").map(ofToday).filter((zone) => zone !== "UTC").sort()] : []);

// How far clocks are ahead of UTC at an instant, in milliseconds.
export function ahead(date) {
  const quarter = Math.floor(date / QUARTER);
  if (!known.has(quarter)) {
    if (known.size > MOST_KNOWN) known.clear();
    known.set(quarter, measured(quarter * QUARTER));
  }
  return known.get(quarter);
}

function measured(instant) {
  const shown = Object.fromEntries(parts.formatToParts(instant).map(({ type, value }) => [type, value]));
  const year = shown.era === "BC" ? 1 - shown.year : Number(shown.year);
  const date = new Date(Date.UTC(2000, shown.month - 1, shown.day, shown.hour, shown.minute, shown.second));
  return date.setUTCFullYear(year, shown.month - 1, shown.day) - instant;
}

// What clocks show at an instant, in milliseconds as if it were UTC, and the first instant at which they show that. What
// they skip is as much later as that is long.
export const wall = (date) => +date + ahead(date);
export function atWall(milliseconds) {
  const offsets = [-DAY, DAY].map((away) => ahead(milliseconds + away));
  const found = offsets.map((offset) => milliseconds - offset).filter((instant) => wall(instant) === milliseconds);
  return new Date(found.length ? Math.min(...found) : milliseconds - offsets[0]);
}

// The local day of an instant.
export const dayOf = (date) => Math.floor(wall(date) / DAY);

// As much later as a calendar says: days of 23 and 25 hours are days. A day that a month lacks is its last one.
export function later(date, { days = 0, months = 0 }) {
  const shown = new Date(wall(date));
  const day = shown.getUTCDate();
  shown.setUTCDate(1);
  shown.setUTCMonth(shown.getUTCMonth() + months);
  const longest = new Date(Date.UTC(shown.getUTCFullYear(), shown.getUTCMonth() + 1, 0)).getUTCDate();
  shown.setUTCDate(Math.min(day, longest) + days);
  return atWall(+shown);
}

// The instants of an interval at which clocks show whole multiples of a step, all in milliseconds.
export function ticks(start, end, step) {
  const found = [];
  const past = (at) => ((wall(at) % step) + step) % step;
  if (step <= HOUR) {
    // The hour that comes twice has them twice.
    for (let at = start; at <= end; at += step - past(at)) if (!past(at)) found.push(at);
    return found;
  }
  for (const shown of steps(wall(start), step)) {
    const at = +atWall(shown);
    if (at > end) return found;
    // Where clocks are put forward, some are too near to each other.
    if (at >= start && !(at - found[found.length - 1] < 0.9 * step)) found.push(at);
  }
}

// What clocks show at each step, from before an instant on: of days from a Monday on. One of 30 days is a month, one of 365
// a year.
function* steps(from, step) {
  if (step < 30 * DAY) for (let shown = MONDAY + step * Math.floor((from - MONDAY) / step); ; shown += step) yield shown;
  const months = step < 365 * DAY ? step / (30 * DAY) : (12 * step) / (365 * DAY);
  const month = 12 * new Date(from).getUTCFullYear() + new Date(from).getUTCMonth();
  for (let number = month - (month % months); ; number += months) yield new Date(0).setUTCFullYear(0, number, 1);
}

// When a bucket of the API ends that begins at an instant: `bucket` is such as 15m, 1d or 3mo.
const WIDTHS = { s: 1e3, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY, mo: 30.436875 * DAY, y: 365.2425 * DAY };
function bare(bucket) {
  const [, number, unit] = /^(\d+)(\w+)$/.exec(bucket);
  return [Number(number), unit];
}

export function lengthOf(bucket) {
  const [number, unit] = bare(bucket);
  return number * WIDTHS[unit];
}

export function endOf(start, bucket) {
  const [number, unit] = bare(bucket);
  if (unit === "d" || unit === "w") return later(start, { days: number * (unit === "d" ? 1 : 7) });
  if (unit === "mo" || unit === "y") return later(start, { months: number * (unit === "mo" ? 1 : 12) });
  const length = number * WIDTHS[unit];
  const end = new Date(+start + length);
  // What divides a day begins anew with each.
  if (DAY % length) return end;
  const midnight = atWall((dayOf(start) + 1) * DAY);
  return midnight < end ? midnight : end;
}
