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

async function call(path, options = {}) {
  const response = await fetch(`${ROOT}/${path}`, { credentials: "same-origin", ...options }).catch((cause) => {
    if (cause.name === "AbortError") throw cause;
    throw new ServiceError(0, UNREACHABLE);
  });
  if (!response.ok) throw problemOf(response.status, await response.text());
  return response;
}

export const models = async () => (await call("models")).json();
export const dicomNode = async () => (await call("dicom-node")).json(); // null: none runs
export const job = async (id) => (await call(`jobs/${id}`)).json();
export const remove = async (id) => { await call(`jobs/${id}`, { method: "DELETE" }); };
export const input = async (id, signal) => (await call(`jobs/${id}/input?channel=0`, { signal })).blob();
export const result = async (id, format, signal) => (await call(`jobs/${id}/result?format=${format}`, { signal })).blob();
export const report = async (id) => (await call(`jobs/${id}/report`)).blob();

export async function login(token) {
  await call("login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
}

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

const FINAL = ["done", "failed", "cancelled"];
const RETRY_MS = 2000;

/** Report every change of a job until it ends: by server-sent events, or by questions where events do not arrive. */
export function follow(id, onJob, onError) {
  const events = new EventSource(`${ROOT}/jobs/${id}/events`);
  let timer = 0;
  const stop = () => { events.close(); clearTimeout(timer); };
  const update = (state) => { if (FINAL.includes(state.state)) stop(); onJob(state); };
  const ask = async () => {
    try {
      const state = await job(id);
      update(state);
      if (!FINAL.includes(state.state)) timer = setTimeout(ask, RETRY_MS);
    } catch (problem) {
      if (problem.status) { stop(); onError(problem); } else timer = setTimeout(ask, RETRY_MS);
    }
  };
  events.onmessage = (event) => update(JSON.parse(event.data));
  events.onerror = () => { events.close(); clearTimeout(timer); timer = setTimeout(ask, RETRY_MS / 4); };
  return stop;
}
