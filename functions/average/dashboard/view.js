// What is looked at. The address bar holds all of it, so a view can be shared, kept, and gone back to.

const MINUTE = 60e3;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
export const PERIODS = { hour: HOUR, day: DAY, week: 7 * DAY, month: 30 * DAY, year: 365 * DAY };
export const MOST_ROOMS = 8;

// Rooms have the API's own names in the address: each `building_id` begins one, a `room_id` behind it narrows it down.
// `faults` is what of the address makes no sense.
export function read(search) {
  const view = { rooms: [], last: "hour", start: null, end: null, faults: [] };
  const refuse = (name, value, why) => view.faults.push(`${name}=${value} ${why}`);
  for (const [name, value] of new URLSearchParams(search)) {
    if (name === "building_id") {
      if (!value) refuse(name, value, "names no building");
      else if (view.rooms.length === MOST_ROOMS) refuse(name, value, `is one more than the ${MOST_ROOMS} that fit`);
      else view.rooms.push({ building: value, room: null });
    } else if (name === "room_id") {
      const place = view.rooms[view.rooms.length - 1];
      if (!value) refuse(name, value, "names no room");
      else if (!place || place.room !== null) refuse(name, value, "has no building_id before it");
      else place.room = value;
    } else if (name === "last") {
      if (value in PERIODS) view.last = value;
      else refuse(name, value, `is none of ${Object.keys(PERIODS).join(", ")}`);
    } else if (name === "start" || name === "end") {
      const instant = new Date(repaired(value));
      if (Number.isNaN(+instant)) refuse(name, value, "is no timestamp, such as 2024-12-01T12:34:56Z");
      else view[name] = instant;
    } else {
      refuse(name, value, "means nothing here");
    }
  }
  if (view.start) view.last = null;
  else if (view.end) {
    refuse("end", instant(view.end), "needs a start");
    view.end = null;
  }
  return view;
}

// A plus sign that was not encoded arrives as a space.
const repaired = (timestamp) => timestamp.replace(/ (?=\d\d(:?\d\d)?$)/, "+");

export function write({ rooms, last, start, end }) {
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
  return `?${query}`;
}

export const key = ({ building, room }) => JSON.stringify([building, room]);
export const instant = (date) => date.toISOString().replace(".000Z", "Z");

// [start, end) of a view, and whether it ends now, so that readings are still to come.
export function interval({ last, start, end }, now) {
  if (!start) return { start: new Date(now - PERIODS[last]), end: now, open: true };
  if (end && end <= now) return { start, end, open: false };
  return { start: start < now ? start : new Date(now - 1), end: now, open: true };
}

// What the clock shows at an instant, in milliseconds, and the instant at which it shows that.
const wall = (date) => date - MINUTE * date.getTimezoneOffset();
function atWall(milliseconds) {
  const shown = new Date(milliseconds);
  return new Date(
    ...[shown.getUTCFullYear(), shown.getUTCMonth(), shown.getUTCDate()],
    ...[shown.getUTCHours(), shown.getUTCMinutes(), shown.getUTCSeconds(), shown.getUTCMilliseconds()],
  );
}

// The interval before (-1) or after (1) one, without a gap between them. Whole days stay whole days where clocks change.
export function beside({ start, end }, direction) {
  const length = wall(end) - wall(start);
  const days = length > 0 && length % DAY === 0;
  const moved = (date) => (days ? atWall(wall(date) + direction * length) : new Date(+date + direction * (end - start)));
  return direction < 0 ? { start: moved(start), end: start } : { start: end, end: moved(end) };
}
