// Calls of the service's API. Addresses are relative, so that the page also works behind a proxy with a path prefix.
const ROOT = "api/v1";

/** An answer of the service other than success. */
export class ServiceError extends Error {
  constructor(status, { code = "", message = "", remedy = "" } = {}) {
    super(message || `The service answered with status ${status}.`);
    Object.assign(this, { status, code, remedy });
  }
}

const UNREACHABLE = { code: "", message: "The service does not answer.", remedy: "Check the connection, then try again." };

function problemOf(status, text) {
  try {
    const body = JSON.parse(text);
    return new ServiceError(status, body.error ?? { message: typeof body.detail === "string" ? body.detail : "" });
  } catch {
    return new ServiceError(status);
  }
}

/** Ask the service; its answer is read as `kind`: json or blob. An aborted `signal` ends it with an AbortError. */
async function call(path, kind, { signal, ...options } = {}) {
  try {
    const response = await fetch(`${ROOT}/${path}`, { credentials: "same-origin", signal, ...options });
    if (!response.ok) throw problemOf(response.status, await response.text());
    const content = await response[kind]();
    signal?.throwIfAborted(); // an answer that was complete before does not fail by itself
    return content;
  } catch (cause) {
    signal?.throwIfAborted();
    throw cause instanceof ServiceError ? cause : new ServiceError(0, UNREACHABLE);
  }
}

export const models = (signal) => call("models", "json", { signal });
export const dicomNode = (signal) => call("dicom-node", "json", { signal }); // null: none runs
export const job = (id, signal) => call(`jobs/${id}`, "json", { signal });
export const remove = (id) => call(`jobs/${id}`, "json", { method: "DELETE" });
export const input = (id, signal) => call(`jobs/${id}/input?channel=0`, "blob", { signal });
export const result = (id, format, signal) => call(`jobs/${id}/result?format=${format}`, "blob", { signal });
export const report = (id) => call(`jobs/${id}/report`, "blob");
export const login = (token, signal) => call("login", "json", { signal, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });

/** Upload files; `onProgress` receives the share that is sent, 0 to 1. An aborted `signal` stops the upload. */
export function submit(model, upload, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report the progress of an upload
    request.open("POST", `${ROOT}/jobs?model=${encodeURIComponent(model)}`);
    for (const [name, value] of Object.entries(upload.headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => request.status === 202 ? resolve(JSON.parse(request.responseText)) : reject(problemOf(request.status, request.responseText));
    request.onerror = () => reject(new ServiceError(0, UNREACHABLE));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(upload.body);
  });
}

const isFinal = (state) => ["done", "failed", "cancelled"].includes(state.state);
const RETRY_MS = 2000;

/**
 * Report every change of a job until it ends: by server-sent events, or by questions where events do not arrive. Once
 * `signal` is aborted, nothing is reported any more.
 */
export function follow(id, signal, onJob, onError) {
  const events = new EventSource(`${ROOT}/jobs/${id}/events`);
  let timer = 0;
  const stop = () => { events.close(); clearTimeout(timer); };
  const askIn = (milliseconds) => { timer = setTimeout(ask, milliseconds); };
  const pass = (state) => { if (isFinal(state)) stop(); onJob(state); };
  const ask = async () => {
    let state;
    try {
      state = await job(id, signal);
    } catch (problem) {
      if (signal.aborted) return;
      return problem.status ? onError(problem) : askIn(RETRY_MS);
    }
    askIn(RETRY_MS);
    pass(state);
  };
  events.onmessage = (event) => pass(JSON.parse(event.data));
  events.onerror = () => { stop(); askIn(RETRY_MS / 4); };
  signal.addEventListener("abort", stop);
}
