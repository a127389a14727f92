// The series of some rooms: for each a line of averages, a band from lowest to highest, and when it was in alarm. Drawn by
// uPlot, which is a script of its own and leaves a global behind.

import { few, sign } from "./alarms.js";
import { drawBands, heightOfRows, letters, style } from "./bands.js";
import { day, degrees, element, month, offset, roomName, roomText, span, temperature, time, twin, year } from "./format.js";
import { ahead, dayOf, ticks } from "./zones.js";

const { uPlot } = window;
// Of each room: its average, lowest, highest, and the average of before.
const LINES = 4;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const HOUR_SECONDS = 3600;
const DAY_SECONDS = 24 * HOUR_SECONDS;
// Pixels that the axis of the temperatures takes at least, and that its ticks do.
const LEAST_AXIS_PX = 40;
const BESIDE_AXIS_PX = 16;
// Fewer buckets than this are shown as dots too.
const FEW_POINTS = 60;

export const dash = (index) => DASHES[index % DASHES.length];
export const colour = (index) => style(`--series-${index + 1}`);

export class Chart {
  // `onZoom(start, end)` is told which interval the reader has chosen in the chart.
  constructor(root, tip, onZoom) {
    this.root = root;
    this.tip = tip;
    this.onZoom = onZoom;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(root);
    // Paper is light.
    for (const other of ["(prefers-color-scheme: dark)", "print"]) matchMedia(other).addEventListener("change", () => this.plot?.redraw(false));
    root.addEventListener("keydown", (event) => this.onKey(event));
    root.addEventListener("blur", () => this.leave());
  }

  // `before` names what was before, of which each room has points too: those of then, as if they were now.
  show({ start, end, seconds, series, before }) {
    Object.assign(this, { start, end, seconds, before, series: series.map((each, number) => ({ ...each, number })) });
    const { data, stops } = aligned(start / 1000, end / 1000, seconds, series);
    this.stops = stops;
    const rooms = series.map(({ label }) => label).join();
    if (this.plot && this.rooms === rooms) {
      this.plot.setData(data);
      // The times beside the axis too: the zone may be another one.
      this.plot.redraw(false, true);
    } else {
      this.plot?.destroy();
      this.rooms = rooms;
      this.plot = new uPlot(this.options(), data, this.root);
      this.touch();
    }
    this.root.setAttribute("aria-valuemax", Math.max(0, stops.length - 1));
    this.root.setAttribute("aria-label", `Time in the chart of ${series.map(({ choice }) => roomText(choice)).join(" and ")}`);
    if (this.plot.cursor.left < 0) this.tip.hidden = true;
  }

  size() {
    return { width: this.root.clientWidth, height: this.root.clientHeight };
  }

  options() {
    const axis = { stroke: () => style("--quiet"), font: `${letters(12)}px ${style("--font")}` };
    const lines = { grid: { stroke: () => style("--line"), width: 1 }, ticks: { stroke: () => style("--line"), width: 1, size: 6 } };
    return {
      ...this.size(),
      padding: [12, (plot) => this.reach(plot).right, 0, (plot) => this.reach(plot).left],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 9 } },
      scales: { x: { range: () => [this.start / 1000, this.end / 1000] }, y: { range: (plot, least, most) => padded(least, most, heightOfRows(this.series) / plot.height) } },
      axes: [
        { ...axis, ...lines, space: (plot) => this.reach(plot).apart, size: letters(46), splits: (_, __, ___, ____, step) => ticks(this.start, this.end, 1000 * step).map((at) => at / 1000), values: (_, found, __, ___, step) => times(found, step) },
        { ...axis, ...lines, size: widest, gap: 6, values: (_, ticks) => ticks.map(degrees) },
      ],
      series: [{}, ...this.series.flatMap((_, index) => this.lines(index))],
      bands: this.series.map((_, index) => ({ series: [LINES * index + 3, LINES * index + 2], fill: () => `${colour(index)}${this.series.length > 1 ? "1f" : "33"}` })),
      hooks: { drawAxes: [(plot) => drawBands(plot, this.series, colour)], setCursor: [() => this.onCursor()], setSelect: [() => this.onSelect()] },
    };
  }

  // How far the labels of the times reach beyond the chart, and how far apart they are to be, in this reader's language.
  reach(plot) {
    const [start, end] = [new Date(this.start), new Date(this.end)];
    const later = measured(plot, 0, labels(start, end));
    const any = Math.max(later, measured(plot, 0, [day(start)]));
    const apart = Math.max(76, any + 14);
    // Of few labels the first may be the last one too.
    const last = plot.width < 5 * apart ? any : later;
    return { apart, left: Math.max(0, Math.ceil(any / 2) - LEAST_AXIS_PX), right: Math.max(16, Math.ceil(last / 2) + 1) };
  }

  lines(index) {
    const line = {
      stroke: () => colour(index),
      width: 2,
      dash: dash(index),
      points: { show: true, size: 5, fill: () => colour(index), width: 0, filter: (plot, number) => alone(plot.data[number]) },
    };
    const edge = { width: 0, points: { show: false } };
    const before = { stroke: () => `${colour(index)}80`, width: 1.5, points: { show: false } };
    return [line, edge, edge, before];
  }

  // uPlot follows the mouse. A finger that is drawn sideways reads the values too.
  touch() {
    this.plot.over.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") return;
      const { left, top } = this.plot.over.getBoundingClientRect();
      this.plot.setCursor({ left: event.clientX - left, top: event.clientY - top });
    });
  }

  onKey(event) {
    const { plot, stops } = this;
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const here = plot.cursor.left < 0 || !stops.length ? -1 : nearest(stops, plot.posToVal(plot.cursor.left, "x"));
    const last = stops.length - 1;
    const page = Math.max(1, Math.round(stops.length / 10));
    const to = {
      ArrowLeft: here < 0 ? last : here - 1,
      ArrowRight: here < 0 ? last : here + 1,
      ArrowDown: here < 0 ? last : here - 1,
      ArrowUp: here < 0 ? last : here + 1,
      PageDown: here - page,
      PageUp: here + page,
      Home: 0,
      End: last,
    }[event.key];
    if (to !== undefined && stops.length) {
      const left = plot.valToPos(stops[Math.min(last, Math.max(0, to))], "x");
      plot.setCursor({ left, top: plot.over.clientHeight / 2 });
    } else if (event.key === "+" || event.key === "-") {
      const length = (this.end - this.start) * (event.key === "+" ? 0.5 : 2);
      const centre = here < 0 ? (this.start + this.end) / 2 : 1000 * stops[here];
      this.onZoom(new Date(centre - length / 2), new Date(centre + length / 2));
    } else if (event.key === "Escape") {
      this.leave();
    } else {
      return;
    }
    event.preventDefault();
  }

  leave() {
    this.plot?.setCursor({ left: -10, top: -10 });
  }

  onSelect() {
    const { left, width } = this.plot.select;
    if (width < 8) return;
    const [start, end] = [left, left + width].map((position) => new Date(1000 * this.plot.posToVal(position, "x")));
    this.plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onZoom(start, end);
  }

  onCursor() {
    const { plot, stops, tip } = this;
    const { left } = plot.cursor;
    if (left === undefined || left < 0 || !stops.length) {
      tip.hidden = true;
      this.root.setAttribute("aria-valuenow", 0);
      this.root.setAttribute("aria-valuetext", "nothing chosen");
      return;
    }
    const index = nearest(stops, plot.posToVal(left, "x"));
    const points = this.series.map(({ points }) => points.find(({ at }) => at === stops[index]));
    const { start, end } = points.find((point) => point);
    const when = span(start, end, this.seconds < 60);
    const middle = 1000 * stops[index];
    const rows = this.series
      .map(({ choice, before }, number) => ({ choice, number, point: points[number], then: during(before ?? [], middle) }))
      .filter(({ point }) => point);
    const alarms = few(this.alarmsOf(+start, +end), this.series.length > 1 || this.series[0].choice.room === null);
    const signs = alarms.lines.map(({ kind, text }) => element("div", {}, sign(kind), element("span", { textContent: text })));
    if (alarms.left) signs.push(element("div", { className: "quiet", textContent: `and ${alarms.left} more` }));
    tip.replaceChildren(element("b", { textContent: when }), ...rows.map((row) => entry(row, this.series.length > 1, this.before)), ...signs);
    tip.hidden = false;
    const x = plot.over.offsetLeft + plot.valToPos(stops[index], "x");
    tip.style.left = `${Math.max(0, Math.min(this.root.clientWidth - tip.offsetWidth, x < this.root.clientWidth / 2 ? x + 14 : x - tip.offsetWidth - 14))}px`;
    this.root.setAttribute("aria-valuenow", index);
    const values = rows.map(({ choice, point, then }) => `${this.series.length > 1 ? `${roomText(choice)} ` : ""}${words(point)}${then ? `, the ${this.before} before ${temperature(then.average)}` : ""}`);
    const said = alarms.lines.map(({ text }) => `. ${text}`).join("") + (alarms.left ? `, and ${alarms.left} more alarms` : "");
    this.root.setAttribute("aria-valuetext", `${when}: ${values.join("; ")}${said}`);
  }

  // The alarms that lasted at some time from one instant to another, of every room that is shown.
  alarmsOf(start, end) {
    const found = this.series.flatMap(({ alarms }) => alarms.filter(({ from, to }) => from < end && (to > start || from >= start)));
    // A room and its building have the same.
    return [...new Map(found.map((each) => [each.alarm.id, each])).values()];
  }
}

// The point in which an instant is. Where clocks skipped an hour, one of before is drawn in the next one, which comes later.
export const during = (points, instant) => points.filter(({ start, end }) => start <= instant && instant < end).pop();

const words = ({ average, min, max }) => `${temperature(average)}, from ${temperature(min)} to ${temperature(max)}`;

function entry({ choice, number, point, then }, named, before) {
  const range = element("span", { className: "quiet", textContent: `${temperature(point.min)} to ${temperature(point.max)}` });
  const value = element("strong", { textContent: temperature(point.average) });
  const earlier = then ? [element("span", { className: "quiet", textContent: `the ${before} before ${temperature(then.average)}` })] : [];
  return element("div", {}, ...(named ? [swatch(number), roomName(choice)] : []), value, range, ...earlier);
}

// The line of a room, for where its name stands: told apart by its dashes too.
export function swatch(index) {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  picture.setAttribute("class", `swatch series-${index + 1}`);
  picture.setAttribute("viewBox", "0 0 26 8");
  picture.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({ x1: 1, x2: 25, y1: 4, y2: 4, "stroke-width": 3, "stroke-dasharray": dash(index).join(" ") })) {
    line.setAttribute(name, value);
  }
  picture.append(line);
  return picture;
}

function nearest(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - value) <= Math.abs(sorted[high] - value) ? low : high;
}

// uPlot's columns: one of instants for all, then average, lowest, highest and what was before of each room. Where a room
// pauses, null leaves a gap; between its readings, undefined does not.
function aligned(start, end, seconds, series) {
  const lines = series.flatMap(({ points, before }) => [points, before ?? []]);
  const pauses = lines.map((points) => gaps(points, seconds, end - start));
  const ofAll = (some) => [...new Set(some.flatMap((points) => points.map(({ at }) => at)))].sort((a, b) => a - b);
  const stops = ofAll(series.map(({ points }) => points));
  const instants = [...new Set([...ofAll(lines), ...pauses.flat()])].sort((a, b) => a - b);
  const places = new Map(instants.map((at, index) => [at, index]));
  const columns = lines.flatMap((points, number) =>
    (number % 2 ? ["average"] : ["average", "min", "max"]).map((name) => {
      const column = new Array(instants.length).fill(undefined);
      for (const at of pauses[number]) column[places.get(at)] = null;
      for (const point of points) column[places.get(point.at)] = point[name];
      return column;
    }),
  );
  return { data: [instants, ...columns], stops };
}

// Where a room pauses for longer than it usually does, or for so long that nobody knows what was in between: an eighth of
// what is looked at, but never less than an hour.
function gaps(points, seconds, length) {
  const steps = points.slice(1).map(({ at }, index) => at - points[index].at);
  const usual = [...steps].sort((a, b) => a - b)[steps.length >> 1] ?? seconds;
  const longest = Math.max(3 * seconds, Math.min(3 * usual, Math.max(length / 8, HOUR_SECONDS)));
  return steps.flatMap((step, index) => (step > longest ? [points[index].at + step / 2] : []));
}

function alone(column) {
  const filled = column.flatMap((value, index) => (value === undefined ? [] : [index]));
  const values = filled.filter((index) => column[index] !== null);
  if (values.length < FEW_POINTS) return values;
  return filled.filter((index, place) => column[index] !== null && column[filled[place - 1]] == null && column[filled[place + 1]] == null);
}

// `above` is how much of the chart is for something else.
function padded(least, most, above) {
  if (least === null) return [0, 30];
  const margin = Math.max(0.5, 0.08 * (most - least));
  const [bottom, top] = [least - margin, most + margin];
  return [bottom, top + (top - bottom) * Math.min(1, above / (1 - Math.min(0.5, above)))];
}

// The pixels that the longest of some labels of an axis takes.
function measured(plot, axis, labels) {
  plot.ctx.font = plot.axes[axis].font[0];
  return Math.max(...labels.map((label) => plot.ctx.measureText(label).width / devicePixelRatio));
}

// The width of an axis whose longest label fits in, with the tick beside it.
function widest(plot, labels, axis) {
  return Math.ceil(Math.max(LEAST_AXIS_PX - BESIDE_AXIS_PX, measured(plot, axis, labels ?? [""]))) + BESIDE_AXIS_PX;
}

// What may be written at the times of an interval, but for its first one.
function labels(start, end) {
  const length = end - start;
  const years = year(start) !== year(end);
  const changes = twin(start) || twin(end) || ahead(start) !== ahead(end);
  const dates = Array.from({ length: 25 }, (_, part) => new Date(+start + (length * part) / 24));
  return [
    ...dates.map((date) => day(date, years)),
    ...(length > 300 * DAY_SECONDS * 1000 ? dates.map(month) : []),
    ...(length < 10 * DAY_SECONDS * 1000 ? dates.map((date) => time(date, length < HOUR_SECONDS * 1000)) : []),
    ...(changes ? [offset(start), offset(end)] : []),
  ];
}

// Where a day begins, it is named; the first tick says which day it is, and of which year unless of this one.
function times(found, step) {
  return found.map((tick, index) => {
    const date = new Date(1000 * tick);
    const before = index > 0 && new Date(1000 * found[index - 1]);
    if (step >= 28 * DAY_SECONDS) return month(date);
    if (step >= DAY_SECONDS) return before && year(before) === year(date) ? day(date, false) : day(date);
    const begins = !before || dayOf(date) !== dayOf(before);
    const beneath = begins ? day(date, before ? false : undefined) : twin(date) ? offset(date) : "";
    return `${time(date, step < 60)}\n${beneath}`;
  });
}
