// The dashboard: what the address bar says is asked of the API, shown, and asked again while it is looked at.
//
// It asks, and no connection is kept open: a function that holds one never scales to zero, and each answer may come from
// another instance. How often follows how long the answers took, so that readers cost the database a twentieth of its
// time at most; a hidden tab asks nothing.

import { Failure, ask, now, token } from "./api.js";
import { Chart, swatch } from "./chart.js";
import { ago, bare, count, duration, element, full, roomName, roomText, span, temperature, width, zone } from "./format.js";
import { MOST_ROOMS, instant, interval, key, read, write } from "./view.js";

const PAUSE = 5000;
const RESTRAINT = 20;
const MANY_ROOMS = 8;

const $ = (id) => document.getElementById(id);
const chart = new Chart($("plot"), $("tip"), (start, end) => go({ ...view, last: null, start: whole(start), end: whole(end) }));

let view = read(location.search);
let rooms = [];
let alarms = [];
let shown = null;
let paused = false;
let timer;
let request = new AbortController();

// --- asking -------------------------------------------------------------------------------------------------------

async function refresh({ chosen = false } = {}) {
  clearTimeout(timer);
  request.abort();
  request = new AbortController();
  const { signal } = request;
  if (chosen) $("dashboard").classList.add("loading");
  const started = performance.now();
  let pause = PAUSE;
  try {
    // The first answer tells the time too, at which the interval ends.
    const first = !rooms.length;
    if (first) await askForRoomsAndAlarms(signal);
    if (rooms.length) {
      const within = interval(view, now());
      const all = chosen || within.open;
      const asked = all && Promise.all(choices().map((choice) => askAbout(choice, within, signal)));
      const [answers] = await Promise.all([asked, first || askForRoomsAndAlarms(signal)]);
      if (all) shown = { ...within, seconds: answers[0].seconds, answers };
    }
    render(chosen);
    notice("");
    pause = Math.max(PAUSE, RESTRAINT * (performance.now() - started));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    if (error.status === 401) return askForToken();
    $("dashboard").classList.remove("loading");
    const final = error.status >= 400 && error.status < 500;
    pause = Math.max(PAUSE, error.pause);
    notice(`${error.message.replace(/\.?$/, ".")} ${final ? "" : `Trying again every ${Math.round(pause / 1000)} seconds.`}`);
    if (final) return;
  }
  schedule(pause);
}

function schedule(pause) {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, pause);
}

async function askForRoomsAndAlarms(signal) {
  [{ rooms }, { alarms }] = await Promise.all([ask("rooms", {}, { signal }), ask("alarms", {}, { signal })]);
}

const choices = () => (view.rooms.length ? view.rooms : rooms.slice(0, 1).map(({ building_id, room_id }) => ({ building: building_id, room: room_id })));

function question(choice, { start, end }) {
  const names = { building_id: choice.building, ...(choice.room === null ? {} : { room_id: choice.room }) };
  return { ...names, start: instant(start), end: instant(end) };
}

// The average is that of the readings, which those of the buckets do not add up to.
async function askAbout(choice, within, signal) {
  const query = question(choice, within);
  const [average, { bucket_seconds: seconds, series }] = await Promise.all([ask("average", query, { signal }), ask("series", query, { signal })]);
  const points = series.map((point) => {
    const bucket = Date.parse(point.start);
    const start = new Date(Math.max(bucket, within.start));
    const end = new Date(Math.min(bucket + 1000 * seconds, within.end));
    return { at: (+start + +end) / 2000, start, end, average: point.average_temperature, min: point.min, max: point.max, count: point.count };
  });
  return { choice, label: key(choice), average, seconds, points };
}

// --- showing ------------------------------------------------------------------------------------------------------

function render(chosen) {
  $("token").hidden = true;
  const empty = !rooms.length;
  $("empty").hidden = !empty;
  $("dashboard").hidden = empty;
  if (empty) return showCommand();
  $("dashboard").classList.remove("loading");
  showAlarms();
  showRooms();
  showSummary();
  showChart();
  showTimes();
  $("live").hidden = !shown.open;
  $("later").disabled = shown.open;
  if (chosen) $("status").textContent = spoken();
}

function notice(text) {
  if ($("notice").textContent !== text) $("notice").textContent = text;
  $("notice").hidden = !text;
  document.body.classList.toggle("failing", Boolean(text));
}

function spoken() {
  return shown.answers
    .map(({ choice, average }) => `${roomText(choice)}: ${average.count ? `average ${temperature(average.average_temperature)} of ${count(average.count)} readings` : "no readings in this interval"}`)
    .join(". ");
}

function latest({ building, room }) {
  const found = rooms.filter(({ building_id, room_id }) => building_id === building && (room === null || room_id === room));
  return found.map((each) => each.latest).sort((a, b) => Date.parse(b.timestamp) - Date.parse(a.timestamp))[0];
}

function moment(timestamp) {
  const date = new Date(timestamp);
  return element("time", { dateTime: timestamp, title: full(date), textContent: ago(date, now()) });
}

function value(number, tag = "data") {
  // All its digits are there for who needs them.
  return element(tag, { value: number ?? "", title: number === null ? "" : `${number} °C`, textContent: number === null ? "–" : temperature(number) });
}

function showSummary() {
  const { answers } = shown;
  const names = answers.map(({ choice }) => choice);
  $("name").replaceChildren(...(names.length === 1 ? [roomName(names[0])] : [`${names.length} rooms compared`]));
  $("rooms-chosen").replaceChildren(...(names.length === 1 ? [roomName(names[0])] : [`${names.length} rooms`]));
  const first = latest(names[0]);
  document.title = names.length === 1 ? `${first ? `${temperature(first.temperature)} · ` : ""}${roomText(names[0])}` : `${names.length} rooms · Temperature`;
  $("summary").replaceChildren(answers.length === 1 ? tiles(answers[0]) : comparison(answers));
}

function tiles({ choice, average }) {
  const reading = latest(choice);
  const tile = (name, content, ...beside) => element("div", { className: "card" }, element("dt", {}, name, ...beside), element("dd", {}, content));
  return element(
    "dl",
    { className: "tiles" },
    tile("Now", value(reading?.temperature ?? null), ...(reading ? [moment(reading.timestamp)] : [])),
    tile("Average", value(average.average_temperature)),
    tile("Lowest", value(average.min)),
    tile("Highest", value(average.max)),
    tile("Readings", element("data", { value: average.count, textContent: count(average.count) })),
  );
}

function comparison(answers) {
  const names = ["Now", "Average", "Lowest", "Highest", "Readings"];
  const head = element("tr", {}, ...["Room", ...names].map((name) => element("th", { scope: "col", textContent: name })));
  const body = answers.map(({ choice, average }, index) => {
    const reading = latest(choice);
    const cells = [
      [value(reading?.temperature ?? null), ...(reading ? [" ", moment(reading.timestamp)] : [])],
      [value(average.average_temperature)],
      [value(average.min)],
      [value(average.max)],
      [element("data", { value: average.count, textContent: count(average.count) })],
    ].map((content, column) => {
      const cell = element("td", {}, ...content);
      // On a phone the names stand beside the values.
      cell.dataset.name = names[column];
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, swatch(index), roomName(choice)), ...cells);
  });
  const table = element("table", {}, element("caption", { className: "unseen", textContent: "The rooms compared" }), element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { className: "card scrolling", tabIndex: 0, role: "region", ariaLabel: "The rooms compared" }, table);
}

function showChart() {
  const { start, end, seconds, answers } = shown;
  const filled = answers.some(({ points }) => points.length);
  chart.show({ start: +start, end: +end, seconds, series: answers });
  $("plot").classList.toggle("vacant", !filled);
  $("nothing").hidden = filled;
  if (!filled) {
    const reading = choices().map(latest).find((each) => each);
    $("nothing").firstElementChild.textContent = reading ? `No readings in this interval. The latest came ${ago(new Date(reading.timestamp), now())}.` : "This room has no readings.";
    $("nothing").lastElementChild.hidden = !reading;
  }
  $("caption").textContent = `Average per ${width(seconds)}; the band is from the lowest to the highest reading`;
  $("when").replaceChildren(`${span(start, end, end - start < 6e5)}. Times are those of ${zone(end)}.`);
  showValues();
}

function showValues() {
  if (!$("values").open) return;
  const { answers, seconds } = shown;
  const rows = new Map();
  answers.forEach(({ points }, index) => {
    for (const point of points) rows.set(point.at, { point, cells: (rows.get(point.at)?.cells ?? answers.map(() => null)).with(index, point) });
  });
  const one = answers.length === 1;
  const titles = one ? ["Average", "Lowest", "Highest", "Readings"] : answers.map(({ choice }) => roomText(choice));
  const head = element("tr", {}, ...["Time", ...titles].map((textContent) => element("th", { scope: "col", textContent })));
  const body = [...rows.entries()].sort(([a], [b]) => b - a).map(([, { point, cells }]) => {
    const texts = one ? [bare(point.average), bare(point.min), bare(point.max), count(point.count)] : cells.map((cell) => (cell ? bare(cell.average) : "–"));
    return element("tr", {}, element("th", { scope: "row", textContent: span(point.start, point.end, seconds < 60) }), ...texts.map((textContent) => element("td", { textContent })));
  });
  $("values").lastElementChild.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function showTimes() {
  for (const time of document.querySelectorAll("time")) time.textContent = ago(new Date(time.dateTime), now());
}

function showCommand() {
  const reading = JSON.stringify({ building_id: "B1", room_id: "101", temperature: 21.5, timestamp: instant(new Date(Math.floor(now() / 1000) * 1000)) });
  // On Kubernetes each function has a name of its own.
  const address = `${location.protocol}//${location.host.replace(/^average\./, "ingest.")}/v1/temperature`;
  const bearer = token.get() ? ' -H "Authorization: Bearer $WRITE_TOKEN"' : "";
  $("command").textContent = `curl ${address}${bearer} \\\n  -H 'Content-Type: application/json' \\\n  -d '${reading}'`;
  $("copy").hidden = !navigator.clipboard;
}

// --- alarms -------------------------------------------------------------------------------------------------------

const KINDS = {
  high: { short: "too warm", long: ({ temperature: found, threshold }) => `was ${temperature(found)}, more than ${temperature(threshold)}` },
  low: { short: "too cold", long: ({ temperature: found, threshold }) => `was ${temperature(found)}, less than ${temperature(threshold)}` },
  silent: { short: "silent", long: ({ threshold }) => `sent nothing for ${duration(threshold)}` },
};

const openAlarms = () => alarms.filter(({ cleared }) => !cleared);

function showAlarms() {
  const open = openAlarms();
  const cleared = alarms.filter(({ cleared }) => cleared);
  $("alarms").hidden = !alarms.length;
  $("alarms").classList.toggle("raised", open.length > 0);
  const heading = open.length ? `${open.length} alarm${open.length === 1 ? "" : "s"}` : "No alarm now";
  if ($("alarms-heading").textContent !== heading) {
    $("alarms-heading").textContent = heading;
    $("status").textContent = heading;
  }
  list($("alarms-open"), open);
  $("alarms-cleared").hidden = !cleared.length;
  $("alarms-cleared").firstElementChild.textContent = `Over again within the last 7 days: ${cleared.length}`;
  list($("alarms-cleared").lastElementChild, cleared);
}

function list(place, some) {
  // Rebuilt only if they changed: the focus stays where it is.
  const state = JSON.stringify(some);
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  place.replaceChildren(...some.map(alarmed));
}

function alarmed(alarm) {
  const choice = { building: alarm.building_id, room: alarm.room_id };
  const button = element("button", { type: "button" }, roomName(choice));
  button.addEventListener("click", () => go({ ...view, rooms: [choice] }));
  const times = alarm.cleared ? ["from ", moment(alarm.raised), " to ", moment(alarm.cleared)] : [moment(alarm.raised)];
  return element("li", {}, button, element("span", {}, element("strong", { textContent: KINDS[alarm.kind].short }), ": ", KINDS[alarm.kind].long(alarm), ", ", ...times));
}

// --- the list of rooms --------------------------------------------------------------------------------------------

let rows = new Map();

function showRooms() {
  const buildings = Map.groupBy(rooms, ({ building_id }) => building_id);
  const entries = [...buildings].flatMap(([building, own]) => [
    ...(own.length > 1 ? [{ building, room: null }] : []),
    ...own.map(({ room_id }) => ({ building, room: room_id })),
  ]);
  // Rebuilt only if rooms came or went: the focus stays where it is.
  const keys = entries.map(key);
  if (keys.join() !== [...rows.keys()].join()) {
    rows = new Map(entries.map((choice) => [key(choice), row(choice)]));
    const groups = Map.groupBy(entries, ({ building }) => building);
    $("rooms").replaceChildren(
      ...[...groups].map(([building, own]) =>
        element("section", { dir: "auto", ariaLabel: building }, element("h3", { textContent: building, dir: "auto", title: building }), element("ul", {}, ...own.map((choice) => rows.get(key(choice)).item))),
      ),
    );
    $("filter").hidden = rooms.length <= MANY_ROOMS;
    filter();
  }
  const chosen = choices().map(key);
  const kinds = Map.groupBy(openAlarms(), ({ building_id, room_id }) => key({ building: building_id, room: room_id }));
  const newest = new Map(rooms.map(({ building_id, room_id, latest }) => [key({ building: building_id, room: room_id }), latest]));
  for (const [name, { choice, item, button, box, alarm, now: text }] of rows) {
    const number = chosen.indexOf(name);
    box.checked = number >= 0;
    box.disabled = number < 0 ? chosen.length >= MOST_ROOMS : chosen.length === 1;
    item.classList.toggle("chosen", number >= 0);
    button.setAttribute("aria-pressed", chosen.length === 1 && number === 0);
    alarm.textContent = (kinds.get(name) ?? []).map(({ kind }) => KINDS[kind].short).join(", ");
    if (choice.room !== null) text.textContent = temperature(newest.get(name).temperature);
  }
  $("rooms-hint").textContent = chosen.length >= MOST_ROOMS ? `${MOST_ROOMS} rooms are the most to compare.` : "Tick several to compare them.";
}

function row(choice) {
  const text = element("span", { className: "now" });
  const alarm = element("span", { className: "alarm" });
  const name = element("bdi", { className: "name", textContent: choice.room ?? "All rooms", title: roomText(choice) });
  const button = element("button", { type: "button" }, name, alarm, text);
  const box = element("input", { type: "checkbox", ariaLabel: `Compare ${roomText(choice)}` });
  button.addEventListener("click", () => {
    go({ ...view, rooms: [choice] });
    expand(false);
  });
  box.addEventListener("change", () => {
    const others = choices().filter((each) => key(each) !== key(choice));
    go({ ...view, rooms: box.checked ? [...others, choice] : others });
  });
  const item = element("li", { className: choice.room === null ? "whole" : "" }, box, button);
  return { choice, item, button, box, alarm, now: text };
}

function filter() {
  const wanted = $("filter").value.trim().toLocaleLowerCase();
  for (const { choice, item } of rows.values()) item.hidden = !`${choice.building} / ${choice.room ?? ""}`.toLocaleLowerCase().includes(wanted);
  for (const section of $("rooms").children) section.hidden = !section.querySelector("li:not([hidden])");
  $("rooms-none").hidden = Boolean($("rooms").querySelector("section:not([hidden])"));
}

function expand(open) {
  $("rooms-toggle").setAttribute("aria-expanded", open);
}

// --- choosing -----------------------------------------------------------------------------------------------------

const whole = (date) => new Date(1000 * Math.round(date / 1000));

function go(next) {
  view = { ...next, rooms: next.rooms.length ? next.rooms : choices() };
  if (write(view) !== location.search) history.pushState(null, "", write(view));
  showPeriod();
  refresh({ chosen: true });
}

function showPeriod() {
  const own = Boolean(view.start);
  document.querySelector(`#periods [value="${own ? "own" : view.last}"]`).checked = true;
  $("own").hidden = !own;
  if (own) fillOwn(view.start, view.end);
}

// A datetime-local input has the reader's own time, without its zone.
const local = (date) => new Date(date - 60000 * date.getTimezoneOffset()).toISOString().slice(0, 19);

function fillOwn(start, end) {
  $("from").value = local(start);
  $("to").value = end ? local(end) : "";
  $("own-fault").textContent = "";
}

$("periods").addEventListener("change", ({ target }) => {
  if (target.value !== "own") return go({ ...view, last: target.value, start: null, end: null });
  const { start, end } = shown ?? interval(view, now());
  fillOwn(start, end);
  $("own").hidden = false;
});

$("own").addEventListener("submit", (event) => {
  event.preventDefault();
  const start = new Date($("from").value);
  const end = $("to").value ? new Date($("to").value) : null;
  const fault = start >= (end ?? now()) ? (end ? "From must be before To." : "From must be in the past.") : "";
  $("own-fault").textContent = fault;
  if (!fault) go({ ...view, last: null, start, end });
});

function shift(direction) {
  const { start, end } = interval(view, now());
  const by = direction * (end - start);
  go({ ...view, last: null, start: whole(new Date(+start + by)), end: whole(new Date(+end + by)) });
}

$("earlier").addEventListener("click", () => shift(-1));
$("later").addEventListener("click", () => shift(1));

$("live").addEventListener("click", () => {
  paused = !paused;
  $("live").setAttribute("aria-pressed", !paused);
  refresh();
});

$("nothing").lastElementChild.addEventListener("click", () => {
  const last = Date.parse(choices().map(latest).find((each) => each).timestamp);
  const length = shown.end - shown.start;
  // The end is not part of an interval.
  const end = whole(new Date(last + 1000));
  go({ ...view, last: null, start: new Date(end - length), end });
});

$("csv").addEventListener("click", async () => {
  const { answers, start, end, seconds } = shown;
  try {
    const texts = await Promise.all(answers.map(({ choice }) => ask("series", { ...question(choice, shown), bucket: `${seconds}s` }, { accept: "text/csv" })));
    // One room is the API's own answer; several are one table, each line with its room.
    const text = texts.length === 1 ? texts[0] : texts.map((each, index) => withRoom(each, answers[index].choice, index)).join("");
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: fileName(answers, start, end) });
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 401) askForToken();
    else notice(error.message);
  }
});

function withRoom(csv, { building, room }, index) {
  const [head, ...lines] = csv.trimEnd().split("\r\n");
  const names = [building, room ?? ""].map(quoted).join();
  return [...(index === 0 ? [`building_id,room_id,${head}`] : []), ...lines.map((line) => `${names},${line}`)].map((line) => `${line}\r\n`).join("");
}

// A spreadsheet takes what begins like this for a formula, and names are anybody's.
const quoted = (text) => `"${(/^[=+@\t\r]|^-\D/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;

function fileName(answers, start, end) {
  const name = answers.length === 1 ? [answers[0].choice.building, answers[0].choice.room ?? "all"].join("-") : `${answers.length}-rooms`;
  const times = [start, end].map((date) => local(date).replaceAll(":", "").replace("T", "-"));
  return `temperature-${name.replace(/[^\p{L}\p{N}.-]+/gu, "_").slice(0, 80)}-${times.join("-")}.csv`;
}

// --- the rest -----------------------------------------------------------------------------------------------------

function askForToken() {
  $("token-fault").textContent = token.get() ? "This token does not allow reading, or not any more." : "";
  token.set("");
  notice("");
  $("dashboard").hidden = $("empty").hidden = true;
  $("token").hidden = false;
  $("token-value").value = "";
  $("token-value").focus();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("token-value").value.trim());
  refresh({ chosen: true });
});

$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("command").textContent);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
});

$("filter").addEventListener("input", filter);
$("values").addEventListener("toggle", showValues);
$("rooms-toggle").addEventListener("click", () => expand($("rooms-toggle").getAttribute("aria-expanded") !== "true"));
addEventListener("popstate", () => {
  view = read(location.search);
  showPeriod();
  refresh({ chosen: true });
});
addEventListener("online", () => refresh());
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : paused || refresh()));
setInterval(showTimes, PAUSE);

showPeriod();
refresh({ chosen: true });
