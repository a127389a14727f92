// The dashboard: what the address bar says is asked of the API, shown, and asked again while it is looked at.
//
// It asks, and no connection is kept open: a function that holds one never scales to zero, and each answer may come from
// another instance. How often follows how long the answers took: a reader costs the database a twentieth of its time at
// most, unless answers take longer than 15 seconds. A hidden tab asks nothing.

import { RECENT_MS, byRoom, list, listOfChart, placeOf, tally, within as alarmsWithin } from "./alarms.js";
import { Failure, LONGEST_PAUSE_MS, ask, askAlarms, askRooms, now, token } from "./api.js";
import { Chart, during, swatch } from "./chart.js";
import { ago, bare, clock, count, day, degreeHours, degrees, element, grouped, hours, moment as momentAt, roomName, roomText, span, temperature, twin, width, zone } from "./format.js";
import { sheet, whole as wholeFile } from "./sheet.js";
import { MOST_ROOMS, asNow, asTaken, beside, earlier, instant, interval, isLimit, key, read, write } from "./view.js";
import { all, atWall, current, dayOf, endOf, lengthOf, named, own, use, wall } from "./zones.js";

const SHORTEST_PAUSE_MS = 5000;
// Times as long as the answers took.
const PAUSE_PER_ANSWER = 20;
// After an answer that failed, which may have been a heavy one.
const PAUSE_PER_FAILURE = 3;
const MANY_ROOMS = 8;
const DOWNLOAD_TIMEOUT_MS = 3600e3;
// Of a room, or of a building, in the chart.
const MOST_ALARMS = 1000;
const CLOCK_ERROR_MS = 60e3;
// Of an address, that are said.
const MOST_FAULTS = 12;
const REFUSED = "This token does not allow reading, or not any more.";

const $ = (id) => document.getElementById(id);

// Hides or shows something. A focus that was within goes on to another place: without one, who uses the keyboard or a
// screen reader would begin at the top again.
function hide(place, hidden, heir) {
  const focused = hidden && place.contains(document.activeElement);
  place.hidden = hidden;
  if (focused) heir.focus({ preventScroll: true });
}

function remove(place) {
  hide(place, true, $("readings"));
  place.remove();
}

// A button that is really disabled loses the focus.
const off = (button, is) => button.setAttribute("aria-disabled", is);
const isOff = (button) => button.getAttribute("aria-disabled") === "true";

const chart = new Chart($("plot"), $("tip"), (start, end) => go({ ...view, last: null, start: whole(start), end: new Date(Math.max(whole(end), +whole(start) + 1000)) }));

let view = read(location.search);
// What is known: the last answers that came.
let rooms = null;
// What is shown without a choice: the first room, also when another one comes before it later.
let standing = [];
let alarms = { known: [], open: 0, next: null };
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
  const failures = [];
  // Each question is answered or fails for itself, and the page shows what is answered.
  const settled = (question) =>
    question.catch((error) => {
      if (signal.aborted || !(error instanceof Failure) || error.status === 401 || isOfZone(error)) throw error;
      failures.push(error);
      return null;
    });
  try {
    // The first answer tells the time too, at which the interval ends, and the room that is shown without a choice.
    const first = !rooms?.length;
    if (first) await askForRoomsAndAlarms(signal, settled);
    if (failures.length) report(failures, SHORTEST_PAUSE_MS);
    if (!standing.some(isKnown)) standing = (rooms ?? []).slice(0, 1).map(placeOf);
    const within = interval(view, now());
    // Once more after its end has passed: what came last is not there yet.
    const all = choices().length && (chosen || within.open || shown?.open || shown?.view !== view || shown.lacking);
    const asked = all ? choices().map((choice) => askAbout(choice, within, signal, settled)) : [];
    const [answers] = await Promise.all([Promise.all(asked), first || askForRoomsAndAlarms(signal, settled)]);
    if (all) keep(answers, within);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Failure)) throw error;
    begun();
    return error.status === 401 ? askForToken() : leaveZone();
  }
  begun();
  render(chosen);
  const took = performance.now() - started;
  const bounded = (pause) => Math.min(LONGEST_PAUSE_MS, Math.max(SHORTEST_PAUSE_MS, pause));
  if (!failures.length) {
    notice("");
    return schedule(bounded(PAUSE_PER_ANSWER * took));
  }
  const pause = bounded(Math.max(PAUSE_PER_FAILURE * took, ...failures.map((each) => each.pause)));
  report(failures, pause);
  schedule(pause);
}

// Whether the API does not know the zone that this browser knows. There is always UTC.
const isOfZone = ({ fields }) => fields.includes("tz") && current() !== "UTC";

function leaveZone() {
  const fault = `tz=${current()} is no time zone that the server knows`;
  view = { ...view, tz: view.tz ? null : "UTC", faults: [...view.faults, fault] };
  use(view.tz);
  showPeriod();
  refresh({ chosen: true });
}

// For start.js, which says otherwise that nothing began.
function begun() {
  window.started = true;
  $("old").hidden = true;
}

function schedule(pause) {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, pause);
}

async function askForRoomsAndAlarms(signal, settled) {
  const [some, others] = await Promise.all([settled(askRooms({ signal })), settled(askAlarms({ signal }))]);
  rooms = some ?? rooms;
  alarms = others ?? alarms;
}

// An answer that did not come is that of before, if the same was asked. Where none came, what is shown stays as it is.
function keep(answers, within) {
  const same = shown?.view === view;
  const came = ({ average, points }) => average || points;
  if (same && !answers.some(came)) return;
  const known = answers.map((answer) => {
    const before = same ? shown.answers.find(({ label }) => label === answer.label) : null;
    const kept = Object.fromEntries(["average", "points", "then", "before", "alarms"].map((name) => [name, answer[name] ?? before?.[name] ?? null]));
    return { ...answer, ...kept, more: answer.alarms ? answer.more : Boolean(before?.more) };
  });
  const bucket = answers.find((each) => each.bucket)?.bucket ?? (same ? shown.bucket : "1m");
  const lacking = answers.some(({ average, points }) => !average || !points);
  shown = { ...within, view, bucket, seconds: lengthOf(bucket) / 1000, lacking, answers: known, at: answers.some(came) ? now() : null };
}

function report(failures, pause) {
  const messages = [...new Set(failures.map(({ message }) => message.replace(/\.?$/, ".")))];
  const at = shown?.at;
  const known = at ? ` What is shown is from ${dayOf(at) === dayOf(now()) ? "" : `${day(at)}, `}${clock(at, true)}.` : "";
  const again = paused ? "" : ` Trying again every ${Math.round(pause / 1000)} seconds.`;
  notice(`${messages.join(" ")}${known}${again}`);
}

const isKnown = ({ building, room }) => rooms?.some(({ building_id, room_id }) => building_id === building && room_id === room);
const choices = () => (view.rooms.length ? view.rooms : standing);

// What is asked for beside the plain average, as the API names it.
const wishesOf = (view) => Object.fromEntries(["weighting", "above", "below"].filter((name) => view[name] !== null).map((name) => [name, view[name]]));

function question(choice, { start, end }) {
  const names = { building_id: choice.building, ...(choice.room === null ? {} : { room_id: choice.room }) };
  return { ...names, start: instant(start), end: instant(end) };
}

// The average is that of the readings, which those of the buckets do not add up to.
async function askAbout(choice, within, signal, settled) {
  const of = (path, query) => settled(ask(path, query, { signal }));
  const past = view.before && earlier(within, view.before);
  const both = (interval, wishes) => {
    const query = { ...question(choice, interval), ...wishes };
    return [of("average", query), of("series", { ...query, tz: current() })];
  };
  const { weighting } = view;
  const questions = [...both(within, wishesOf(view)), ...(past ? both(past, weighting ? { weighting } : {}) : [null, null])];
  if (!areKnown(within)) questions.push(of("alarms", { ...question(choice, within), limit: MOST_ALARMS }));
  const [average, found, then, before, others] = await Promise.all(questions);
  return {
    choice,
    label: key(choice),
    average,
    bucket: found?.bucket,
    points: found && pointsOf(found, within, (date) => date),
    then,
    before: before && pointsOf(before, past, (date) => asNow(date, view.before)),
    alarms: others?.alarms ?? null,
    more: Boolean(others?.next),
  };
}

// Those of a series, each in the middle of its bucket, as far as that is in the interval. `moved` says when that is drawn.
function pointsOf({ bucket, series }, within, moved) {
  return series.map((point) => {
    const begin = new Date(point.start);
    const start = moved(new Date(Math.max(begin, within.start)));
    const end = moved(new Date(Math.min(endOf(begin, bucket), within.end)));
    return { at: (+start + +end) / 2000, start, end, average: point.average_temperature, min: point.min, max: point.max, count: point.count };
  });
}

// Whether the alarms of an interval are among those that are known anyway.
const areKnown = ({ start }) => alarms.next === null && start >= now() - RECENT_MS - CLOCK_ERROR_MS;

// --- showing ------------------------------------------------------------------------------------------------------

function render(chosen) {
  const empty = rooms?.length === 0;
  const first = !empty && !$("empty").hidden;
  const [page, other, heir] = empty ? ["empty", "dashboard", "empty"] : ["dashboard", "empty", "readings"];
  // What is hidden takes no focus.
  $(page).hidden = false;
  for (const id of ["token", other]) hide($(id), true, $(heir));
  $("dashboard").classList.remove("loading");
  if (empty) return showCommand();
  const news = showAlarms();
  if (news) $("status").textContent = news;
  if (rooms) showRooms();
  showAddress();
  if (!shown) return;
  showSummary();
  showChart();
  showTimes();
  // Where it was switched off it can be switched on again, whatever is looked at meanwhile.
  hide($("live"), !shown.open && !paused, $("earlier"));
  off($("later"), shown.open);
  if (chosen || first) $("status").textContent = `${news && `${news}. `}${spoken()}`;
}

// What of the address makes no sense, and what is shown instead.
function showAddress() {
  $("address").hidden = !view.faults.length;
  const left = view.faults.length - MOST_FAULTS;
  const text = `Left out of the address: ${view.faults.slice(0, MOST_FAULTS).join("; ")}${left > 0 ? `; and ${count(left)} more` : ""}.`;
  if (view.faults.length && $("address").textContent !== text) $("address").textContent = text;
}

function notice(text) {
  if ($("notice").textContent !== text) $("notice").textContent = text;
  $("notice").hidden = !text;
  document.body.classList.toggle("failing", Boolean(text));
}

function spoken() {
  return shown.answers.map((answer) => `${roomText(answer.choice)}: ${saidOf(answer)}`).join(". ");
}

function saidOf({ average, then }) {
  if (!average) return "no answer";
  const parts = average.average_temperature === null ? ["no readings in this interval"] : [`average ${temperature(average.average_temperature)} of ${count(average.count)} reading${average.count === 1 ? "" : "s"}`];
  if (then?.count) parts.push(`the ${shown.view.before} before ${temperature(then.average_temperature)}`);
  for (const { name, title } of limits()) if (average[name] && average[name].seconds !== null) parts.push(`${title.toLowerCase()} for ${hours(average[name].seconds)}`);
  return parts.join(", ");
}

function latest({ building, room }) {
  const found = (rooms ?? []).filter(({ building_id, room_id }) => building_id === building && (room === null || room_id === room));
  return found.map((each) => each.latest).sort((a, b) => Date.parse(b.timestamp) - Date.parse(a.timestamp))[0];
}

const moment = (timestamp) => momentAt(timestamp, now());

// Of a question that was not answered yet.
const UNKNOWN = { average_temperature: null, min: null, max: null, count: null };

function value(number) {
  // All its digits are there for who needs them.
  return element("data", { value: number ?? "", title: number === null ? "" : `${number} °C`, textContent: number === null ? "–" : temperature(number) });
}

function showSummary() {
  const { answers } = shown;
  const names = answers.map(({ choice }) => choice);
  $("name").replaceChildren(...(names.length === 1 ? [roomName(names[0])] : [`${names.length} rooms compared`]));
  $("rooms-chosen").replaceChildren(...(names.length === 1 ? [roomName(names[0])] : [`${names.length} rooms`]));
  const first = latest(names[0]);
  document.title = names.length === 1 ? `${first ? `${temperature(first.temperature)} · ` : ""}${roomText(names[0])}` : `${names.length} rooms · Temperature`;
  const made = answers.length === 1 ? tiles(answers[0]) : comparison(answers);
  const before = $("summary").firstElementChild;
  // What is focused or scrolled stays so.
  if (before.className === made.className) renew(before, made);
  else {
    before.before(made);
    remove(before);
  }
}

// Has tiles or a table say what those say that were made anew. What says the same already is not touched: somebody may have
// selected it, or hear it read aloud.
function renew(place, made) {
  const [before, after] = [place, made].map((each) => ({ head: each.querySelector("thead")?.textContent, body: each.querySelector("tbody") ?? each }));
  if (before.head !== after.head) return place.replaceChildren(...made.childNodes);
  const known = new Map([...before.body.children].map((each) => [each.outerHTML, each]));
  arrange(before.body, [...after.body.children].map((each) => known.get(each.outerHTML) ?? each));
}

const number = (found) => element("data", { value: found ?? "", textContent: found === null ? "–" : count(found) });

// What the average was before, where that is drawn too; and of how much time it is.
function besideAverage({ average, then }) {
  const known = average?.covered_seconds === undefined ? [] : [element("span", { className: "then", textContent: `known for ${hours(average.covered_seconds)}` })];
  return then ? [...known, element("span", { className: "then" }, `${shown.view.before} before `, value(then.average_temperature))] : known;
}

// The names of the limits that are asked about, and for how long and by how much an answer was beyond.
const LIMITS = ["above", "below"];
const limits = () => LIMITS.filter((name) => shown.view[name] !== null).map((name) => ({ name, title: `${name === "above" ? "Above" : "Below"} ${degrees(shown.view[name])}` }));

function beyond(average, name) {
  const found = average?.[name];
  if (!found) return ["–"];
  const { seconds, degree_hours: sum } = found;
  if (seconds === null) return [element("data", { value: "", textContent: "–" }), element("span", { className: "then", textContent: "not known: readings were dropped" })];
  return [element("data", { value: seconds, title: `${seconds} seconds`, textContent: hours(seconds) }), element("span", { className: "then", textContent: degreeHours(sum) })];
}

function tiles(answer) {
  const { choice, average } = answer;
  const reading = latest(choice);
  const found = average ?? UNKNOWN;
  const tile = (name, content, ...beside) => element("div", { className: "card" }, element("dt", {}, name, ...beside), element("dd", {}, ...[content].flat()));
  return element(
    "dl",
    { className: "tiles" },
    tile("Now", value(reading?.temperature ?? null), ...(reading ? [moment(reading.timestamp)] : [])),
    tile("Average", [value(found.average_temperature), ...besideAverage(answer)]),
    tile("Lowest", value(found.min)),
    tile("Highest", value(found.max)),
    tile("Readings", number(found.count)),
    ...limits().map(({ name, title }) => tile(title, beyond(average, name))),
  );
}

function comparison(answers) {
  const names = ["Now", "Average", "Lowest", "Highest", "Readings", ...limits().map(({ title }) => title)];
  const head = element("tr", {}, ...["Room", ...names].map((name) => element("th", { scope: "col", textContent: name })));
  const body = answers.map((answer, index) => {
    const { choice, average } = answer;
    const reading = latest(choice);
    const found = average ?? UNKNOWN;
    const cells = [
      [value(reading?.temperature ?? null), ...(reading ? [" ", moment(reading.timestamp)] : [])],
      [value(found.average_temperature), ...besideAverage(answer)],
      [value(found.min)],
      [value(found.max)],
      [number(found.count)],
      ...limits().map(({ name }) => beyond(average, name)),
    ].map((content, column) => {
      const cell = element("td", {}, ...content);
      // On a phone the names stand beside the values.
      cell.dataset.name = names[column];
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, swatch(index), roomName(choice)), ...cells);
  });
  const table = element("table", {}, element("caption", { className: "unseen", textContent: "The rooms compared" }), element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { className: "card scrolling", tabIndex: 0, role: "region", "aria-label": "The rooms compared" }, table);
}

function showChart() {
  const { start, end, seconds, bucket } = shown;
  const answers = answered();
  const filled = answers.some(({ points, before }) => points.length || before?.length);
  chart.show({ start: +start, end: +end, seconds, series: answers, before: shown.view.before });
  $("plot").classList.toggle("vacant", !filled);
  hide($("nothing"), filled, $("plot"));
  if (!filled) {
    const reading = choices().map(latest).find((each) => each);
    $("nothing").firstElementChild.textContent = absence(reading);
    hide($("nothing").lastElementChild, !reading || shown.answers.some(({ points }) => !points), $("plot"));
  }
  const { before, weighting } = shown.view;
  const light = before ? `; the light line is the ${before} before` : "";
  $("caption").textContent = `Average ${weighting ? "over time " : ""}per ${width(bucket)}; the band is from the lowest to the highest reading${light}`;
  const behind = before ? `; behind it ${between(earlier(shown, before))}` : "";
  $("when").textContent = `${between(shown)}${behind}. Times are those of ${zone(start, end)}.`;
  showAlarmsOfChart(answers);
  showValues();
}

const between = ({ start, end }) => span(start, end, end - start < 6e5);

// The same as words, for who does not see the chart, or wants to look closer.
function showAlarmsOfChart(answers) {
  const drawn = [...new Map(answers.flatMap((answer) => answer.alarms).map((each) => [each.alarm.id, each])).values()];
  const newest = shown.answers.some((answer) => answer.more) ? "the newest " : "";
  hide($("excursions"), !drawn.length, $("plot"));
  $("excursions").firstElementChild.replaceChildren(`Alarms in this interval: ${newest}${count(drawn.length)} `, ...tally(drawn.map(({ alarm }) => alarm)));
  const named = answers.length > 1 || answers[0].choice.room === null;
  listOfChart($("excursions").lastElementChild, drawn, named, (start, end) => go({ ...view, last: null, start: whole(start), end: end && whole(end) }));
}

const answered = () => shown.answers.map((answer) => ({ ...answer, points: answer.points ?? [], alarms: alarmsWithin(answer.alarms ?? alarms.known, answer.choice, +shown.start, +shown.end) }));

function absence(reading) {
  if (shown.answers.some(({ points }) => !points)) return "This could not be answered. The message above says why.";
  return reading ? `No readings in this interval. The latest came ${ago(new Date(reading.timestamp), now())}.` : "This room has no readings.";
}

function showValues() {
  if (!$("values").open) return;
  const { seconds } = shown;
  const answers = answered();
  const rows = new Map();
  answers.forEach(({ points }, index) => {
    for (const point of points) {
      if (!rows.has(point.at)) rows.set(point.at, { point, cells: answers.map(() => null) });
      rows.get(point.at).cells[index] = point;
    }
  });
  const one = answers.length === 1;
  const earlierOnes = one && shown.view.before ? answers[0].before ?? [] : null;
  const titles = one ? ["Average", "Lowest", "Highest", "Readings", ...(earlierOnes ? [`The ${shown.view.before} before`] : [])] : answers.map(({ choice }) => roomText(choice));
  const head = element("tr", {}, ...["Time", ...titles].map((textContent) => element("th", { scope: "col", textContent })));
  const body = [...rows.entries()].sort(([a], [b]) => b - a).map(([, { point, cells }]) => {
    const then = earlierOnes && during(earlierOnes, 1000 * point.at);
    const texts = one ? [bare(point.average), bare(point.min), bare(point.max), count(point.count), ...(earlierOnes ? [then ? bare(then.average) : "–"] : [])] : cells.map((cell) => (cell ? bare(cell.average) : "–"));
    return element("tr", {}, element("th", { scope: "row", textContent: span(point.start, point.end, seconds < 60) }), ...texts.map((textContent) => element("td", { textContent })));
  });
  renew($("values").lastElementChild, element("div", {}, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
}

function showTimes() {
  for (const time of document.querySelectorAll("time")) {
    const text = ago(new Date(time.dateTime), now());
    if (time.textContent !== text) time.textContent = text;
  }
}

function showCommand() {
  const reading = JSON.stringify({ building_id: "B1", room_id: "101", temperature: 21.5, timestamp: instant(new Date(Math.floor(now() / 1000) * 1000)) });
  // On Kubernetes each function has a name of its own.
  const address = `${location.protocol}//${location.host.replace(/^average\./, "ingest.")}${new URL("v1/temperature", location).pathname}`;
  const bearer = token.get() ? ' -H "Authorization: Bearer $WRITE_TOKEN"' : "";
  $("command").textContent = `curl ${address}${bearer} \\\n  -H 'Content-Type: application/json' \\\n  -d '${reading}'`;
  $("copy").hidden = !navigator.clipboard;
}

// --- alarms -------------------------------------------------------------------------------------------------------

// Returns what is to be told of them, if anything.
function showAlarms() {
  const { known, open, next } = alarms;
  const over = known.filter(({ cleared }) => cleared);
  hide($("alarms"), !known.length, $("readings"));
  $("alarms").classList.toggle("raised", open > 0);
  const heading = open ? `${count(open)} alarm${open === 1 ? "" : "s"}` : "No alarm now";
  const before = $("alarms-heading").textContent;
  if (before !== heading) $("alarms-heading").textContent = heading;
  // Before the lists: one that is over is still there, and may have the focus of one that was open.
  hide($("alarms-cleared"), !over.length, $("readings"));
  const onRoom = (choice) => go({ ...view, rooms: [choice] });
  list($("alarms-open"), known.filter(({ cleared }) => !cleared), now(), onRoom);
  $("alarms-cleared").firstElementChild.textContent = `Over again within the last 7 days: ${next ? "more than " : ""}${count(over.length)}`;
  list($("alarms-cleared").lastElementChild, over, now(), onRoom);
  return before !== heading && (before || known.length) ? heading : "";
}

// --- the list of rooms --------------------------------------------------------------------------------------------

let rows = new Map();
let sections = new Map();

// Has a place contain some elements in their order. What stays is not touched, and so neither the focus nor how far the
// place is scrolled.
function arrange(place, wanted) {
  const kept = new Set(wanted);
  for (const child of [...place.children]) if (!kept.has(child)) remove(child);
  let next = place.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = next.nextElementSibling;
    else place.insertBefore(child, next);
  }
}

const section = (building) => element("section", { dir: "auto", "aria-label": building }, element("h3", { textContent: building, dir: "auto", title: building }), element("ul"));

function showRooms() {
  const buildings = grouped(rooms, ({ building_id }) => building_id);
  const entries = [...buildings].flatMap(([building, own]) => [
    ...(own.length > 1 ? [{ building, room: null }] : []),
    ...own.map(({ room_id }) => ({ building, room: room_id })),
  ]);
  // Arranged anew only if rooms came or went.
  const keys = entries.map(key);
  const others = keys.join() !== [...rows.keys()].join();
  if (others) {
    rows = new Map(entries.map((choice) => [key(choice), rows.get(key(choice)) ?? row(choice)]));
    const groups = grouped(entries, ({ building }) => building);
    sections = new Map([...groups.keys()].map((building) => [building, sections.get(building) ?? section(building)]));
    for (const [building, own] of groups) arrange(sections.get(building).lastElementChild, own.map((choice) => rows.get(key(choice)).item));
    arrange($("rooms"), [...sections.values()]);
    hide($("filter"), rooms.length <= MANY_ROOMS, $("readings"));
  }
  const chosen = choices().map(key);
  const alarming = byRoom(alarms.known);
  const perBuilding = grouped([...alarming.values()], ([{ building_id }]) => building_id);
  const newest = new Map(rooms.map(({ building_id, room_id, latest }) => [key({ building: building_id, room: room_id }), latest]));
  for (const [name, { choice, item, button, box, alarm, now: text }] of rows) {
    const number = chosen.indexOf(name);
    box.checked = number >= 0;
    box.disabled = number < 0 ? chosen.length >= MOST_ROOMS : chosen.length === 1;
    item.classList.toggle("chosen", number >= 0);
    const pressed = String(chosen.length === 1 && number === 0);
    // Of thousands of rooms few change, and a browser takes what is written again for a change.
    if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
    showMark(item, alarm, choice, alarming.get(name) ?? [], perBuilding.get(choice.building)?.length ?? 0);
    const shown = choice.room === null ? "" : temperature(newest.get(name).temperature);
    if (text.textContent !== shown) text.textContent = shown;
  }
  const some = alarming.size;
  hide($("alarmed"), !some || rooms.length <= MANY_ROOMS, $(rooms.length > MANY_ROOMS ? "filter" : "readings"));
  $("alarmed").textContent = `Only rooms in alarm (${count(some)})`;
  $("rooms-alarms").textContent = some ? `${count(some)} in alarm` : "";
  if (others || $("alarmed").getAttribute("aria-pressed") === "true") filter();
  $("rooms-hint").textContent = chosen.length >= MOST_ROOMS ? `${MOST_ROOMS} rooms are the most to compare.` : "Tick several to compare them.";
}

// Which alarms a room has; of a building, how many of its rooms have one.
function showMark(item, mark, choice, own, inAlarm) {
  const state = choice.room !== null ? own.map(({ id }) => id).join() : inAlarm ? `${count(inAlarm)} in alarm` : "";
  if (mark.dataset.state === state) return;
  mark.dataset.state = state;
  item.dataset.alarm = state ? "yes" : "";
  if (choice.room === null) mark.replaceChildren(state);
  else mark.replaceChildren(...tally(own));
}

function row(choice) {
  const text = element("span", { className: "now" });
  const alarm = element("span", { className: "alarm" });
  const name = element("bdi", { className: "name", textContent: choice.room ?? "All rooms", title: roomText(choice) });
  const button = element("button", { type: "button" }, name, alarm, text);
  const box = element("input", { type: "checkbox", "aria-label": `Compare ${roomText(choice)}` });
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
  // A letter with a mark may be one character or two.
  const plain = (text) => text.normalize().toLocaleLowerCase();
  // Of few rooms none is looked for, whatever was typed when there were more.
  const wanted = $("filter").hidden ? "" : plain($("filter").value.trim());
  const only = !$("alarmed").hidden && $("alarmed").getAttribute("aria-pressed") === "true";
  for (const { choice, item } of rows.values()) {
    const found = plain(`${choice.building} / ${choice.room ?? ""}`).includes(wanted);
    hide(item, !found || (only && !item.dataset.alarm), $("alarmed"));
  }
  for (const section of $("rooms").children) section.hidden = !section.querySelector("li:not([hidden])");
  $("rooms-none").hidden = Boolean($("rooms").querySelector("section:not([hidden])"));
}

function expand(open) {
  // Where there is no such button, the rooms are always there.
  if (!open && $("rooms-panel").contains(document.activeElement)) $("rooms-toggle").focus();
  $("rooms-toggle").setAttribute("aria-expanded", open);
}

// --- choosing -----------------------------------------------------------------------------------------------------

const whole = (date) => new Date(1000 * Math.round(date / 1000));

const periodOf = ({ last, start, end, tz }) => JSON.stringify([last, start, end, tz]);

function go(next) {
  const [start, end] = [next.start, next.end].map((date) => date && asTaken(date));
  const before = periodOf(view);
  view = { ...next, rooms: next.rooms.length ? next.rooms : choices(), start, end, faults: [] };
  use(view.tz);
  if (write(view) !== location.search) history.pushState(null, "", write(view));
  // An interval that is half typed is none yet, and stays.
  if (periodOf(view) === before) showMore();
  else showPeriod();
  refresh({ chosen: true });
}

function showPeriod() {
  document.documentElement.classList.remove("own");
  const custom = Boolean(view.start);
  const period = document.querySelector(`#periods [value="${custom ? "own" : view.last}"]`);
  period.checked = true;
  hide($("own"), !custom, period);
  if (custom) fillOwn(view.start, view.end);
  showMore();
}

// A datetime-local input has the time of clocks, without their zone.
const local = (date) => new Date(wall(date)).toISOString().slice(0, 19);

function fillOwn(start, end) {
  fill($("from"), start);
  fill($("to"), end);
  $("own-fault").textContent = "";
}

// The instant is kept with the text, which does not say all of it: no fractions, and not which hour of two.
function fill(input, date) {
  input.value = date ? local(date) : "";
  input.kept = { date, value: input.value };
}

const chosenIn = (input) => (input.value === input.kept?.value ? input.kept.date : input.value ? atWall(Date.parse(`${input.value}Z`)) : null);

$("periods").addEventListener("change", ({ target }) => {
  $("own").hidden = target.value !== "own";
  if ($("own").hidden) return go({ ...view, last: target.value, start: null, end: null });
  const { start, end } = shown ?? interval(view, now());
  fillOwn(start, end);
});

$("own").addEventListener("submit", (event) => {
  event.preventDefault();
  const start = chosenIn($("from"));
  let end = chosenIn($("to"));
  // In the hour that comes twice the second may be meant.
  if (end && end <= start) end = twin(end) ?? end;
  const fault = start >= (end ?? now()) ? (end ? "From must be before To." : "From must be in the past.") : "";
  $("own-fault").textContent = fault;
  if (!fault) go({ ...view, last: null, start, end });
});

// --- more ---------------------------------------------------------------------------------------------------------

function showMore() {
  $("tz").value = view.tz ?? "";
  $("tz").placeholder = own;
  $("tz-fault").textContent = "";
  $("before").value = view.before ?? "";
  $("weighting").value = view.weighting ?? "";
  for (const name of LIMITS) $(name).value = view[name] ?? "";
  const chosen = [view.tz, view.before && `the ${view.before} before`, view.weighting && "average over time", ...LIMITS.map((name) => view[name] !== null && `${name} ${degrees(view[name])}`)];
  $("more-chosen").textContent = chosen.filter((each) => each).join(", ");
}

$("more").addEventListener("toggle", () => {
  if (!$("zones").childElementCount) $("zones").append(...all().map((value) => element("option", { value })));
});

$("tz").addEventListener("change", () => {
  const zone = $("tz").value.trim();
  const tz = zone ? named(zone) : null;
  if (zone && !tz) $("tz-fault").textContent = "No such time zone; one is Europe/Zurich.";
  else go({ ...view, tz });
});

for (const name of ["before", "weighting"]) $(name).addEventListener("change", () => go({ ...view, [name]: $(name).value || null }));
for (const name of LIMITS) {
  $(name).addEventListener("change", () => {
    // What is no number has no value either.
    if ($(name).reportValidity()) go({ ...view, [name]: isLimit($(name).value) ? Number($(name).value) : null });
  });
}
$("settings").addEventListener("submit", (event) => event.preventDefault());

function shift(direction) {
  const { start, end, open } = interval(view, now());
  // The button says so when the answer is there, and may have been pressed again before.
  if (open && direction > 0) return;
  const next = beside({ start: whole(start), end: whole(end) }, direction);
  go({ ...view, last: null, ...next });
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

$("csv").addEventListener("click", () =>
  save("temperature", async ({ answers, bucket, view }) => {
    const texts = await Promise.all(answers.map(({ choice }) => ask("series", { ...question(choice, shown), ...wishesOf(view), bucket, tz: view.tz ?? own }, { accept: "text/csv" })));
    return new Blob([sheet(texts, answers.map(({ choice }) => choice))], { type: "text/csv" });
  }),
);

$("every").addEventListener("click", async () => {
  if (isOff($("every"))) return;
  off($("every"), true);
  await save("readings", async ({ answers, start, end }) => {
    const files = [];
    // One after the other: each may be large, and is kept by the browser wherever it keeps such.
    for (const { choice } of answers) {
      files.push(await ask("readings", { ...question(choice, { start, end }), format: "csv" }, { read: (response) => response.blob(), timeout: DOWNLOAD_TIMEOUT_MS }));
    }
    return wholeFile(files);
  });
  off($("every"), false);
});

// Saves what is made of what is shown.
async function save(kind, make) {
  if (!shown) return;
  const { answers, start, end } = shown;
  try {
    const link = element("a", { href: URL.createObjectURL(await make(shown)), download: fileName(kind, answers, start, end) });
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 401) askForToken();
    else notice(error.message);
  }
}

function fileName(kind, answers, start, end) {
  const name = answers.length === 1 ? [answers[0].choice.building, answers[0].choice.room ?? "all"].join("-") : `${answers.length}-rooms`;
  const times = [start, end].map((date) => local(date).replace(/:/g, "").replace("T", "-"));
  return `${kind}-${[...name.replace(/[^\p{L}\p{N}.-]+/gu, "_")].slice(0, 80).join("")}-${times.join("-")}.csv`;
}

// --- the rest -----------------------------------------------------------------------------------------------------

function askForToken() {
  const refused = token.get();
  token.set("");
  notice("");
  // Who looked it up elsewhere and comes back is asked already, and may have begun to type.
  if (!refused && !$("token").hidden) return;
  $("token-fault").textContent = refused ? REFUSED : "";
  $("dashboard").hidden = $("empty").hidden = true;
  $("token").hidden = false;
  $("token-value").value = "";
  $("token-value").focus();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token-value").value.trim();
  // What no token has is nothing that a header takes.
  if (/[^!-~]/.test(given)) {
    $("token-fault").textContent = REFUSED;
  } else {
    token.set(given);
    refresh({ chosen: true });
  }
});

$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("command").textContent);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
});

$("filter").addEventListener("input", filter);
$("alarmed").addEventListener("click", () => {
  $("alarmed").setAttribute("aria-pressed", $("alarmed").getAttribute("aria-pressed") !== "true");
  filter();
});
$("values").addEventListener("toggle", showValues);
$("rooms-toggle").addEventListener("click", () => expand($("rooms-toggle").getAttribute("aria-expanded") !== "true"));
addEventListener("popstate", () => {
  view = read(location.search);
  use(view.tz);
  showPeriod();
  refresh({ chosen: true });
});
// Paused, it asks by itself for nothing but what it could not get.
const look = () => (document.hidden ? clearTimeout(timer) : (paused && $("notice").hidden) || refresh());
addEventListener("online", look);
document.addEventListener("visibilitychange", look);
setInterval(showTimes, SHORTEST_PAUSE_MS);
// On paper nobody opens anything, and it is not known when "a minute ago" was.
addEventListener("beforeprint", () => {
  $("excursions").open = true;
  for (const time of document.querySelectorAll("time")) time.textContent = time.title;
});
addEventListener("afterprint", showTimes);

// For start.js, which says so otherwise.
window.loaded = true;
use(view.tz);
showPeriod();
refresh({ chosen: true });
