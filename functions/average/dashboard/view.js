// What is looked at. The address bar holds all of it, so a view can be shared, kept, and gone back to.

import { DAY, atWall, later, named, use, wall } from "./zones.js";

const HOUR = 3600e3;
export const PERIODS = { hour: HOUR, day: DAY, week: 7 * DAY, month: 30 * DAY, year: 365 * DAY };
export const MOST_ROOMS = 8;
// What the API takes of every time zone.
const [FIRST, LAST] = ["0001-01-03T00:00:00Z", "9999-12-29T00:00:00Z"].map(Date.parse);
const OFTEN = ["building_id", "room_id"];
// What may be drawn behind the chart, and how much earlier it was.
export const BEFORE = { week: { days: -7 }, year: { months: -12 } };

// Rooms have the API's own names in the address: each `building_id` begins one, a `room_id` behind it narrows it down.
// `faults` is what of the address makes no sense.
export function read(search) {
  const view = { rooms: [], last: "hour", start: null, end: null, tz: null, before: null, weighting: null, above: null, below: null, faults: [] };
  const refuse = (name, value, why) => view.faults.push(`${name}=${value} ${why}`);
  const query = new URLSearchParams(search);
  // Local times are those of the zone, which may be named behind them.
  use(query.getAll("tz").map(named).find(Boolean) ?? null);
  const taken = new Set();
  let place = null;
  for (const [name, value] of query) {
    const faults = view.faults.length;
    if (taken.has(name)) {
      refuse(name, value, "is there a second time");
    } else if (name === "building_id") {
      // Also of one that is left out: the room behind it goes with it.
      place = { building: value, room: null };
      if (!value) refuse(name, value, "names no building");
      else if (view.rooms.length === MOST_ROOMS) refuse(name, value, `is one more than the ${MOST_ROOMS} that fit`);
      else view.rooms.push(place);
    } else if (name === "room_id") {
      if (!value) refuse(name, value, "names no room");
      else if (!place || place.room !== null) refuse(name, value, "has no building_id before it");
      else place.room = value;
    } else if (name === "last") {
      if (Object.keys(PERIODS).includes(value)) view.last = value;
      else refuse(name, value, `is none of ${Object.keys(PERIODS).join(", ")}`);
    } else if (name === "start" || name === "end") {
      const instant = timestamp(repaired(value));
      if (instant) view[name] = instant;
      else refuse(name, value, "is no timestamp, such as 2024-12-01T12:34:56Z");
    } else if (name === "tz") {
      const zone = named(value);
      if (zone) view.tz = zone;
      else refuse(name, value, "is no time zone, such as Europe/Zurich");
    } else if (name === "weighting") {
      if (value === "time") view.weighting = value;
      else if (value !== "reading") refuse(name, value, "is none of reading, time");
    } else if (name === "above" || name === "below") {
      if (isLimit(value)) view[name] = Number(value);
      else refuse(name, value, "is no temperature from -50 to 50");
    } else if (name === "before") {
      if (Object.keys(BEFORE).includes(value)) view.before = value;
      else refuse(name, value, `is none of ${Object.keys(BEFORE).join(", ")}`);
    } else {
      refuse(name, value, "means nothing here");
    }
    if (view.faults.length === faults && !OFTEN.includes(name)) taken.add(name);
  }
  if (view.start && taken.has("last")) refuse("last", view.last, "has no place beside start");
  if (view.start) view.last = null;
  if (view.end && (!view.start || view.end <= view.start)) {
    refuse("end", instant(view.end), view.start ? "is not after start" : "needs a start");
    view.end = null;
  }
  view.rooms = [...new Map(view.rooms.map((place) => [key(place), place])).values()];
  return view;
}

export const isLimit = (text) => text.trim() !== "" && Math.abs(Number(text)) <= 50;

// A plus sign that was not encoded arrives as a space.
const repaired = (timestamp) => timestamp.replace(/(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (?=\d\d(?::?\d\d)?$)/, "$1+");

// An instant, or a local date or time of the zone, as the API takes them; null for anything else. Browsers alone take
// much more, each in its own way, and times without an offset for those of the reader.
const TIMESTAMP = /^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:([Zz])|([+-])(\d\d):?(\d\d)?)?)?$/;
function timestamp(text) {
  const [, day, time = "00:00", utc, sign, hours, minutes = 0] = TIMESTAMP.exec(text) || [];
  const clocks = new Date(`${day}T${time}Z`);
  // The 30th of February would be the 1st of March.
  if (Number.isNaN(+clocks) || !clocks.toISOString().startsWith(day)) return null;
  const found = utc || sign ? clocks - (sign ? Number(`${sign}1`) * (60 * hours + Number(minutes)) * 60e3 : 0) : atWall(+clocks);
  return found >= FIRST && found <= LAST ? new Date(found) : null;
}

export const asTaken = (date) => new Date(Math.min(LAST, Math.max(FIRST, date)));

export function write({ rooms, last, start, end, tz, before, weighting, above, below }) {
  const query = new URLSearchParams();
  for (const { building, room } of rooms) {
    query.append("building_id", building);
    if (room !== null) query.append("room_id", room);
  }
  if (start) {
    query.append("start", instant(start));
    if (end) query.append("end", instant(end));
  } else {
    query.append("last", last);
  }
  for (const [name, value] of Object.entries({ tz, before, weighting, above, below })) {
    if (value !== null) query.append(name, value);
  }
  return `?${query}`;
}

export const key = ({ building, room }) => JSON.stringify([building, room]);
export const instant = (date) => date.toISOString().replace(".000Z", "Z");

// [start, end) of a view, and whether it ends now, so that readings are still to come.
export function interval({ last, start, end }, now) {
  if (!start) return { start: new Date(now - PERIODS[last]), end: now, open: true };
  if (end && end <= now) return { start, end, open: false };
  if (start < now) return { start, end: now, open: true };
  // Clocks of devices may be ahead.
  return { start, end: end ?? new Date(+start + 1000), open: true };
}

// The interval before (-1) or after (1) one, without a gap between them. Whole days stay whole days where clocks change.
export function beside({ start, end }, direction) {
  const length = wall(end) - wall(start);
  const days = length > 0 && length % DAY === 0;
  const moved = (date) => (days ? atWall(wall(date) + direction * length) : new Date(+date + direction * (end - start)));
  return direction < 0 ? { start: moved(start), end: start } : { start: end, end: moved(end) };
}

// The same interval of the week or year before, and what of then would be when it is now, as the calendar has it.
export function earlier({ start, end }, before) {
  return { start: later(start, BEFORE[before]), end: later(end, BEFORE[before]) };
}

export function asNow(date, before) {
  const { days = 0, months = 0 } = BEFORE[before];
  return later(date, { days: -days, months: -months });
}
