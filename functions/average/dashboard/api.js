// Questions to the API, with the token of this tab if there is one.

const PATIENCE = 30e3;
let skew = 0;

export class Failure extends Error {
  constructor(status, detail, pause = 0) {
    super(detail);
    this.status = status;
    this.pause = pause;
  }
}

// The server's time: what is asked for ends now, and the clock here may be minutes off.
export const now = () => new Date(Date.now() + skew);

export const token = {
  get: () => sessionStorage.getItem("token"),
  set: (value) => (value ? sessionStorage.setItem("token", value) : sessionStorage.removeItem("token")),
};

export async function ask(path, query, { signal, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(`v1/temperature/${path}?${new URLSearchParams(query)}`, {
      headers,
      cache: "no-store",
      signal: AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])]),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, navigator.onLine ? "The server does not answer." : "You are offline.");
  }
  const difference = Date.parse(response.headers.get("Date")) - Date.now();
  // The header has whole seconds, and took a moment to get here: less than that is no difference.
  skew = Math.abs(difference) > 2000 ? difference : 0;
  if (response.ok) {
    try {
      return await (accept === "text/csv" ? response.text() : response.json());
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure(0, "The answer broke off.");
    }
  }
  const problem = await response.json().catch(() => ({}));
  const faults = (problem.errors ?? []).map(({ field, message }) => `${field} ${message}`);
  throw new Failure(
    response.status,
    faults.join("; ") || problem.detail || `The server answered ${response.status}.`,
    1000 * Number(response.headers.get("Retry-After") ?? 0),
  );
}
