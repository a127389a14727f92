// Questions to the API, with the token of this tab if there is one.

const ANSWER_TIMEOUT_MS = 30e3;
// However long a server asks to be left alone, or seems to have taken because the machine slept: a page that is looked at
// asks again after this.
export const LONGEST_PAUSE_MS = 300e3;
const FIRST_ALARMS = 1000;
let skew = 0;

export class Failure extends Error {
  constructor(status, detail, pause = 0, fields = []) {
    super(detail);
    this.status = status;
    this.pause = pause;
    this.fields = fields;
  }
}

// The server's time: what is asked for ends now, and the clock here may be minutes off.
export const now = () => new Date(Date.now() + skew);

// A browser may be told to keep nothing of this page. Then a token is gone when the page is loaded again.
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

let given = stored((storage) => storage.getItem("token"));
export const token = {
  get: () => given,
  set: (value) => {
    given = value;
    stored((storage) => (value ? storage.setItem("token", value) : storage.removeItem("token")));
  },
};

const readers = { "text/csv": (response) => response.text(), "application/json": (response) => response.json() };

// `read` is what makes something of the response; `timeout` how long all of it may take, in milliseconds.
export async function ask(path, query, { signal, accept = "application/json", read = readers[accept], timeout = ANSWER_TIMEOUT_MS } = {}) {
  const headers = { Accept: accept };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const { given, done } = patient(signal, timeout);
  let response;
  try {
    // Beside this page, wherever a proxy has put it.
    response = await fetch(`v1/temperature/${path}?${new URLSearchParams(query)}`, { headers, cache: "no-store", signal: given });
    tellTime(response);
    if (!response.ok) throw await failure(response);
    return await read(response);
  } catch (error) {
    if (error instanceof Failure || (signal && signal.aborted)) throw error;
    throw new Failure(0, response ? "The answer broke off." : navigator.onLine ? "The server does not answer." : "You are offline.");
  } finally {
    done();
  }
}

// All rooms, page by page.
export async function askRooms(options) {
  const rooms = [];
  let page = { next: "" };
  while (page.next !== null) {
    page = await ask("rooms", page.next ? { after: page.next } : {}, options);
    rooms.push(...page.rooms);
  }
  return rooms;
}

// All alarms that are open, and the newest of those that ended within a week; `next` is null where these are all.
export async function askAlarms(options) {
  const known = [];
  let page = { next: "" };
  do {
    page = await ask("alarms", page.next ? { after: page.next } : { limit: FIRST_ALARMS }, options);
    known.push(...page.alarms);
  } while (page.next && !known[known.length - 1].cleared);
  return { known, open: page.open, next: page.next };
}

// A signal that gives up with the one that is given, or after a while.
function patient(signal, timeout) {
  const control = new AbortController();
  const giveUp = () => control.abort();
  const timer = setTimeout(giveUp, timeout);
  if (signal && signal.aborted) giveUp();
  else if (signal) signal.addEventListener("abort", giveUp);
  const done = () => {
    clearTimeout(timer);
    if (signal) signal.removeEventListener("abort", giveUp);
  };
  return { given: control.signal, done };
}

function tellTime(response) {
  const difference = Date.parse(response.headers.get("Date")) - Date.now();
  // The header has whole seconds, and took a moment to get here: less than that is no difference.
  skew = Math.abs(difference) > 2000 ? difference : 0;
}

async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  const errors = problem.errors || [];
  const detail = errors.map(({ field, message }) => `${field} ${message}`).join("; ") || problem.detail || `The server answered ${response.status}.`;
  return new Failure(response.status, detail, pause(response.headers), errors.map(({ field }) => field));
}

// Retry-After is a number of seconds or a date (RFC 9110, 10.2.3), in milliseconds; 0 where it is neither.
function pause(headers) {
  const value = (headers.get("Retry-After") || "").trim();
  const sent = Date.parse(headers.get("Date"));
  const wait = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - (Number.isNaN(sent) ? Date.now() : sent);
  return Math.min(LONGEST_PAUSE_MS, Math.max(0, wait || 0));
}
