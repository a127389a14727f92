// The time zone in which times are shown and chosen: the reader's own, or another one.

const MINUTE = 60e3;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
// Offsets change at whole quarters of an hour at most.
const QUARTER = 15 * MINUTE;
const MOST_KNOWN = 20e3;
const PARTS = { hourCycle: "h23", era: "short", year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };

// Chrome names one that it does not know Etc/Unknown, which it then does not take.
export const own = named(Intl.DateTimeFormat().resolvedOptions().timeZone) ?? "UTC";
let name = own;
let parts = made(own);
let known = new Map();

function made(zone) {
  return new Intl.DateTimeFormat("en-US", { ...PARTS, timeZone: zone, calendar: "gregory", numberingSystem: "latn" });
}

// The zone by the name that the API knows, whose capitals count; null if this browser knows none. Offsets are none that
// have a calendar.
export function named(zone) {
  try {
    return /^[+-]/.test(zone) ? null : made(zone).resolvedOptions().timeZone;
  } catch {
    return null;
  }
}

export const current = () => name;

// Shows and takes times of the zone from now on; null is the reader's own.
export function use(zone) {
  if ((zone ?? own) === name) return;
  name = zone ?? own;
  parts = made(name);
  known = new Map();
}

export const all = () => (Intl.supportedValuesOf ? ["UTC", ...Intl.supportedValuesOf("timeZone").filter((zone) => zone !== "UTC")] : []);

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

// The local day and year of an instant.
export const dayOf = (date) => Math.floor(wall(date) / DAY);
export const yearOf = (date) => new Date(wall(date)).getUTCFullYear();

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

// For what knows the reader's own zone only: a date that shows there what clocks show here.
export function disguised(instant) {
  if (name === own) return new Date(instant);
  const shown = new Date(wall(instant));
  return new Date(
    ...[shown.getUTCFullYear(), shown.getUTCMonth(), shown.getUTCDate()],
    ...[shown.getUTCHours(), shown.getUTCMinutes(), shown.getUTCSeconds(), shown.getUTCMilliseconds()],
  );
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
