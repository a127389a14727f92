// What is looked at. The address bar holds all of it, so a view can be shared, kept, and gone back to.

const HOUR = 3600e3;
const DAY = 24 * HOUR;
export const PERIODS = { hour: HOUR, day: DAY, week: 7 * DAY, month: 30 * DAY, year: 365 * DAY };
export const MOST_ROOMS = 8;

// Rooms have the API's own names in the address: each `building_id` begins one, a `room_id` behind it narrows it down.
export function read(search) {
  const view = { rooms: [], last: "hour", start: null, end: null };
  for (const [name, value] of new URLSearchParams(search)) {
    if (name === "building_id" && value && view.rooms.length < MOST_ROOMS) view.rooms.push({ building: value, room: null });
    else if (name === "room_id" && value && view.rooms.length) view.rooms.at(-1).room = value;
    else if (name === "last" && Object.hasOwn(PERIODS, value)) view.last = value;
    else if ((name === "start" || name === "end") && !Number.isNaN(Date.parse(value))) view[name] = new Date(value);
  }
  if (view.start) view.last = null;
  else view.end = null;
  return view;
}

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
