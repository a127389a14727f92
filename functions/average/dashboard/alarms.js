// Alarms: what they say, which of them a chart shows, and lists of them.

import { now } from "./api.js";
import { apart, clock, count, day, duration, element, grouped, moment, roomName, roomText, span, temperature, thisYear, year } from "./format.js";
import { key } from "./view.js";
import { current } from "./zones.js";

// The API tells without being asked of those that ended within so long.
export const RECENT_MS = 7 * 24 * 3600e3;
const MOST_LISTED = 100;
const SHORT_MS = 600e3;

// `shape` is drawn in a square of 10, so that no kind is told by its colour alone.
export const KINDS = {
  high: { short: "too warm", shape: "M0 9.5 5 .5 10 9.5Z", long: (alarm) => `was ${apart(alarm.temperature, alarm.threshold).join(", more than ")}` },
  low: { short: "too cold", shape: "M0 .5 5 9.5 10 .5Z", long: (alarm) => `was ${apart(alarm.temperature, alarm.threshold).join(", less than ")}` },
  silent: { short: "silent", shape: "M0 3.5H10V6.5H0Z", long: ({ threshold }) => `sent nothing for ${duration(threshold)}` },
};
// One that a newer server knows, while this page stays open.
const kindOf = (kind) => KINDS[kind] ?? { short: kind, shape: "M1 1H9V9H1Z", long: (alarm) => `was ${temperature(alarm.temperature)}` };

export const placeOf = ({ building_id, room_id }) => ({ building: building_id, room: room_id });
const isOpen = ({ cleared }) => !cleared;
const SVG = "http://www.w3.org/2000/svg";

export function sign(kind) {
  const picture = document.createElementNS(SVG, "svg");
  const shape = document.createElementNS(SVG, "path");
  picture.setAttribute("class", `sign ${kind}`);
  picture.setAttribute("viewBox", "0 0 10 10");
  picture.setAttribute("aria-hidden", "true");
  shape.setAttribute("d", kindOf(kind).shape);
  picture.append(shape);
  return picture;
}

// From when to when, in the words of a chart. One that is open goes on.
function lasted({ raised, cleared }) {
  const start = new Date(raised);
  if (!cleared) return `since ${day(start, !thisYear(start))}, ${clock(start)}`;
  const end = new Date(cleared);
  return span(start, end, end - start < SHORT_MS);
}

export const told = (alarm) => `${kindOf(alarm.kind).short}: ${kindOf(alarm.kind).long(alarm)}`;

// What its readings said only when it was over, so that nobody was told in time.
const late = ({ cleared, noticed }) => cleared && Date.parse(noticed) > Date.parse(cleared) + 120e3;

// The alarms of a room, or of all rooms of a building, that lasted at some time in an interval, as a chart draws them.
export function within(alarms, { building, room }, start, end) {
  return alarms
    .filter(({ building_id, room_id }) => building_id === building && (room === null || room_id === room))
    .map((alarm) => ({ alarm, from: Date.parse(alarm.raised), to: alarm.cleared ? Date.parse(alarm.cleared) : Infinity }))
    .filter(({ from, to }) => from < end && to >= start)
    .sort((one, other) => one.from - other.from);
}

export const byRoom = (alarms) => grouped(alarms.filter(isOpen), (alarm) => key(placeOf(alarm)));

// How many of each kind, each with its sign.
export function tally(alarms) {
  return [...grouped(alarms, ({ kind }) => kind)].map(([kind, some]) => element("span", { className: "kind" }, sign(kind), ` ${kindOf(kind).short}${some.length > 1 ? ` ${count(some.length)}` : ""}`));
}

// Rebuilt only if it changed. The focus stays on the alarm where it is, or what is in its place then.
function fill(place, some, state, entry) {
  // The times in it are of a zone, and have their year unless it is this one.
  const whole = JSON.stringify([current(), year(now()), state]);
  if (place.dataset.state === whole) return;
  place.dataset.state = whole;
  const left = some.length - MOST_LISTED;
  const before = [...place.children].findIndex((each) => each.contains(document.activeElement));
  const { id } = place.children[before]?.dataset ?? {};
  place.replaceChildren(...some.slice(0, MOST_LISTED).map(entry), ...(left > 0 ? [element("li", { className: "quiet", textContent: `and ${count(left)} more` })] : []));
  if (before < 0) return;
  const buttons = [...place.querySelectorAll("button")];
  const same = buttons.find((each) => each.parentElement.dataset.id === id);
  const next = same ?? buttons[Math.min(before, buttons.length - 1)] ?? place.closest("section").querySelector("summary");
  next.focus({ preventScroll: true });
}

function line(alarm, ...content) {
  const made = element("li", {}, sign(alarm.kind), ...content);
  made.dataset.id = alarm.id;
  return made;
}

// `onRoom(choice)` is told which room the reader has chosen.
export function list(place, alarms, now, onRoom) {
  fill(place, alarms, alarms, (alarm) => {
    const button = element("button", { type: "button" }, roomName(placeOf(alarm)));
    button.addEventListener("click", () => onRoom(placeOf(alarm)));
    const times = alarm.cleared ? ["from ", moment(alarm.raised, now), " to ", moment(alarm.cleared, now)] : [moment(alarm.raised, now)];
    return line(alarm, button, said(alarm, ", ", ...times));
  });
}

function said(alarm, ...more) {
  return element("span", {}, element("strong", { textContent: kindOf(alarm.kind).short }), `: ${kindOf(alarm.kind).long(alarm)}`, ...more);
}

// Those of the chart, the newest first. `onInterval(start, end)` is told when the chosen one was, with some time around it.
export function listOfChart(place, drawn, named, onInterval) {
  const newest = [...drawn].sort((one, other) => other.from - one.from);
  fill(place, newest, [named, newest], ({ alarm, from, to }) => {
    const button = element("button", { type: "button", "aria-label": `Show ${lasted(alarm)}`, textContent: lasted(alarm) });
    const around = Math.max(SHORT_MS, (Math.min(to, now()) - from) / 2);
    button.addEventListener("click", () => onInterval(new Date(from - around), to === Infinity ? null : new Date(to + around)));
    const noticed = late(alarm) ? [`, told ${day(new Date(alarm.noticed))}, ${clock(new Date(alarm.noticed))}`] : [];
    const room = named ? [roomName(placeOf(alarm))] : [];
    return line(alarm, button, ...room, said(alarm, ...noticed));
  });
}

// What is said of some alarms where there is room for few.
export function few(drawn, named, most = 3) {
  const lines = drawn.slice(0, most).map(({ alarm }) => ({ kind: alarm.kind, text: `${named ? `${roomText(placeOf(alarm))} ` : ""}${told(alarm)}, ${lasted(alarm)}` }));
  return { lines, left: Math.max(0, drawn.length - most) };
}

