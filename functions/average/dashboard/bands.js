// When alarms lasted, drawn behind the lines of a chart.

import { KINDS } from "./alarms.js";
import { degrees } from "./format.js";

// Pixels.
const ROW_PX = 13;
const LEAST_WIDTH_PX = 2;
const TILE_PX = 8;
// What each kind is hatched with, as lines in a tile.
const HATCHES = {
  high: [[0, TILE_PX, TILE_PX, 0]],
  low: [[0, 0, TILE_PX, TILE_PX]],
  silent: [[0, TILE_PX / 2, TILE_PX / 2, TILE_PX / 2]],
};
const root = () => getComputedStyle(document.documentElement);
export const style = (name) => root().getPropertyValue(name).trim();
// As large as the reader wants the letters of the page, in whole pixels: `size` is that of usual ones.
export const letters = (size) => Math.round((size * parseFloat(root().fontSize)) / 16);

// `series` has the alarms of each line. Of one line they are bands as high as the chart, with their thresholds; of
// several each has a row of its own, in the colour of the line.
export function drawBands(plot, series, colour) {
  const inAlarm = series.filter(({ alarms }) => alarms.length);
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  const alone = series.length === 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  inAlarm.forEach(({ alarms, number }, index) => {
    Object.keys(KINDS).forEach((kind, row) => {
      const own = alarms.filter(({ alarm }) => alarm.kind === kind);
      const hue = alone ? style(`--${kind}`) : colour(number);
      const top = bbox.top + ratio * ROW_PX * (alone ? row : index);
      const height = alone ? bbox.height - ratio * ROW_PX * row : ratio * ROW_PX;
      for (const [left, right] of spans(plot, own)) band(ctx, { left, right, top, height, kind, hue, alone }, ratio);
      if (alone && kind !== "silent") thresholds(plot, own, hue, ratio);
    });
  });
  ctx.restore();
}

// How high all rows are, in pixels, so that lines need not be behind them.
export const heightOfRows = (series) => (series.length > 1 ? ROW_PX * series.filter(({ alarms }) => alarms.length).length : 0);

// The stretches of the chart in which there is an alarm, in pixels: no more of them than it has pixels, however many
// alarms there are.
function spans(plot, alarms) {
  const { left, width } = plot.bbox;
  const found = [];
  for (const { from, to } of alarms) {
    const first = Math.max(left, plot.valToPos(from / 1000, "x", true));
    const last = Math.min(left + width, to === Infinity ? left + width : plot.valToPos(to / 1000, "x", true));
    const end = Math.max(last, first + LEAST_WIDTH_PX * devicePixelRatio);
    const before = found[found.length - 1];
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], end);
    else found.push([first, end]);
  }
  return found;
}

function band(ctx, { left, right, top, height, kind, hue, alone }, ratio) {
  const row = ratio * ROW_PX;
  ctx.globalAlpha = alone ? 0.08 : 0.25;
  ctx.fillStyle = hue;
  ctx.fillRect(left, top, right - left, height);
  ctx.globalAlpha = alone ? 0.3 : 0.6;
  ctx.fillStyle = hatched(ctx, kind, hue, ratio);
  ctx.fillRect(left, top, right - left, height);
  ctx.globalAlpha = 1;
  ctx.fillStyle = hue;
  if (alone) ctx.fillRect(left, top, right - left, 2 * ratio);
  if (right - left < row) return;
  ctx.save();
  ctx.translate(left + 2 * ratio, top + (alone ? 4 : 2) * ratio);
  ctx.scale(0.9 * ratio, 0.9 * ratio);
  ctx.fill(new Path2D(KINDS[kind].shape));
  ctx.restore();
}

function hatched(ctx, kind, hue, ratio) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = TILE_PX * ratio;
  const pen = tile.getContext("2d");
  pen.scale(ratio, ratio);
  pen.strokeStyle = hue;
  for (const [x, y, toX, toY] of HATCHES[kind]) {
    // Beside it too, so that the corners are whole.
    for (const shift of [-TILE_PX, 0, TILE_PX]) {
      pen.moveTo(x + shift, y);
      pen.lineTo(toX + shift, toY);
    }
  }
  pen.stroke();
  return ctx.createPattern(tile, "repeat");
}

// Where the limit was while an alarm lasted.
function thresholds(plot, alarms, hue, ratio) {
  const { ctx, bbox } = plot;
  for (const limit of new Set(alarms.map(({ alarm }) => alarm.threshold))) {
    const y = plot.valToPos(limit, "y", true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    const own = spans(plot, alarms.filter(({ alarm }) => alarm.threshold === limit));
    ctx.beginPath();
    for (const [left, right] of own) {
      ctx.moveTo(left, y);
      ctx.lineTo(right, y);
    }
    ctx.strokeStyle = ctx.fillStyle = hue;
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash([6 * ratio, 3 * ratio]);
    ctx.stroke();
    ctx.setLineDash([]);
    const widest = own.reduce((one, other) => (other[1] - other[0] > one[1] - one[0] ? other : one));
    ctx.font = `600 ${letters(11) * ratio}px ${style("--font")}`;
    const text = degrees(limit);
    if (widest[1] - widest[0] < ctx.measureText(text).width + 8 * ratio) continue;
    ctx.textAlign = "left";
    ctx.textBaseline = alarms[0].alarm.kind === "high" ? "top" : "bottom";
    ctx.fillText(text, widest[0] + 4 * ratio, y + (alarms[0].alarm.kind === "high" ? 3 : -3) * ratio);
  }
}
