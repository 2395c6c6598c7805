// The page: which panel is visible, and what its buttons do.
import * as api from "./api.js";
import { filesOfDrop, folderOf, problemWith, uploadOf } from "./files.js";
import { duration, megabytes, moment, percent, sentence } from "./format.js";
import { nodeText, nodeProblems } from "./node.js";
import { Legend } from "./legend.js";
import { Viewer } from "./viewer.js";

const PANELS = ["loading", "login", "start", "working", "problem", "result"];
const $ = (id) => document.getElementById(id);
const formatButtons = document.querySelectorAll("[data-format]");
let models = [];
let viewer = null;
let current = null; // the job on the screen: its id, and its label map once the viewer has it
let leaving = new AbortController(); // its signal belongs to what is on the screen, and is aborted with it

function show(panel) {
  for (const name of PANELS) $(name).hidden = name !== panel;
  document.body.dataset.panel = panel;
  $(panel).querySelector("[tabindex='-1']")?.focus({ preventScroll: true });
}

function say(id, text) { $(id).textContent = text; $(id).hidden = !text; }

// Names of files stay in this tab.
const remember = (id, name) => sessionStorage.setItem(`name-${id}`, name);
const nameOf = (id) => sessionStorage.getItem(`name-${id}`) ?? "Image";
const stemOf = (name) => name.replace(/\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|zip|dcm)$/i, "") || "image";

/**
 * Make room on the screen for something else: whatever waits for the service or the viewer ends. Returns the signal of
 * what comes. Code that continues after an `await` passes it on, or looks at it: an answer that comes late is of another job.
 */
function leave() {
  leaving.abort();
  leaving = new AbortController();
  current = null;
  viewer?.clear();
  delete document.body.dataset.viewer;
  return leaving.signal;
}

const jobInAddress = () => location.hash.match(/^#job=([\w-]+)$/)?.[1];
const shownViewer = () => (document.body.dataset.viewer === "ready" ? viewer : null);
const isUploading = () => !$("working").hidden && !current;

async function start() {
  const signal = leave();
  show("loading");
  try {
    models = await api.models(signal);
  } catch (problem) {
    return fail(problem, signal, "The service cannot be used now");
  }
  fillModels();
  const id = jobInAddress();
  if (id) open(id); else showStart();
}

function showStart() {
  show("start");
  showNode(leaving.signal);
}

function fail(problem, signal, title) {
  if (signal.aborted) return;
  if (problem.status === 401) { leave(); show("login"); } else showProblem(problem, title);
}

function fillModels() {
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  $("model").disabled = models.length < 2;
  describeModel();
}

async function showNode(signal) {
  const node = await api.dicomNode(signal).catch(() => null);
  if (signal.aborted) return;
  $("node").hidden = !node;
  if (!node) return;
  $("node-jobs").textContent = nodeText(node);
  const problems = nodeProblems(node).map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  $("node-problems").replaceChildren(...problems);
  $("node-problems").hidden = !problems.length;
}

const chosenModel = () => models.find((model) => model.name === $("model").value) ?? models[0];
const channelNames = (model) => model.channels.map((channel) => channel.name ?? channel);

function describeModel() {
  const model = chosenModel();
  $("model-about").textContent = model.description ?? "";
  const chips = model.labels.slice(0, 12).map((label) => {
    const item = document.createElement("li");
    item.style.setProperty("--hue", label.color);
    item.textContent = label.name;
    return item;
  });
  if (model.labels.length > chips.length) {
    const item = document.createElement("li");
    item.className = "more";
    item.textContent = `and ${model.labels.length - chips.length} more`;
    chips.push(item);
  }
  $("model-labels").replaceChildren(...chips);
  const names = channelNames(model);
  $("drop-title").textContent = names.length > 1 ? `Drop ${names.length} images here` : "Drop an image here";
  $("drop-channels").textContent = names.length > 1 ? `One image for each channel, in the order of their names: ${names.join(", ")}.` : "";
}

async function submit(entries, folderName) {
  const prepared = uploadOf(entries, folderName);
  const model = chosenModel();
  const problem = problemWith(prepared.entries, model.channels.length);
  say("start-wrong", problem);
  if (problem) return;
  const size = prepared.entries.reduce((sum, entry) => sum + entry.file.size, 0);
  const signal = leave();
  showWork({ step: "upload", name: prepared.name, title: "Uploading", share: 0, detail: megabytes(size) });
  try {
    const job = await api.submit(model.name, prepared, (share) => showWork({ step: "upload", name: prepared.name, title: "Uploading", share, detail: `${megabytes(share * size)} of ${megabytes(size)}` }), signal);
    remember(job.id, prepared.name);
    follow(job.id, signal);
    location.hash = `job=${job.id}`; // a reload continues with this job
  } catch (problem) {
    fail(problem, signal, "The image was not accepted");
  }
}

function open(id) {
  const signal = leave();
  show("loading");
  follow(id, signal);
}

function follow(id, signal) {
  current = { id, labelMap: null };
  api.follow(id, signal, (job) => update(job, signal), (problem) => {
    if (problem.status === 404) showProblem({ message: "Results are kept for a limited time, and can be deleted before.", code: problem.code }, "This result does not exist any more");
    else fail(problem, signal, "The service cannot be used now");
  });
}

function update(job, signal) {
  if (job.state === "done") return void showResult(job, signal);
  if (job.state === "failed") return showProblem(job.error ?? {}, "The image could not be segmented");
  if (job.state === "cancelled") return home();
  const name = nameOf(job.id);
  if (job.state === "queued") {
    const before = Math.max(0, (job.position ?? 1) - 1);
    return showWork({ step: "queued", name, title: "Waiting", detail: before > 0 ? `${before} ${before === 1 ? "image" : "images"} before this one` : "This image is next", left: job.seconds_left });
  }
  return showWork({ step: "running", name, title: "Segmenting", share: job.progress, detail: percent(job.progress ?? 0), left: job.seconds_left });
}

function showWork({ step, name, title, share, detail = "", left }) {
  if ($("working").hidden) show("working");
  if ($("working-title").textContent !== title) $("working-title").textContent = title; // it is read aloud
  $("working-name").textContent = name;
  if (share > 0) $("working-bar").value = share; else $("working-bar").removeAttribute("value");
  $("working-detail").textContent = detail;
  $("working-left").textContent = left == null ? "" : `about ${duration(left)} left`;
  const steps = [...$("steps").children];
  const index = steps.findIndex((item) => item.dataset.step === step);
  steps.forEach((item, i) => { item.className = i < index ? "past" : i === index ? "now" : ""; });
}

function showProblem({ code = "", message = "", remedy = "" }, title) {
  leave();
  $("problem-title").textContent = title;
  $("problem-code").textContent = code;
  $("problem-text").textContent = sentence(message);
  say("problem-remedy", sentence(remedy));
  show("problem");
}

async function showResult(job, signal) {
  const shown = current;
  describeResult(job);
  legend.show(job); // by the model that computed it: the service may have another one now
  show("result");
  $("veil").textContent = "Loading the images …";
  try {
    const [image, labelMap] = await Promise.all([api.input(job.id, signal), api.result(job.id, "nifti", signal)]);
    shown.labelMap = labelMap;
    viewer ??= new Viewer($("canvas"), showLocation);
    await viewer.show(image, labelMap, job.labels, signal);
    document.body.dataset.viewer = "ready";
    viewer.setHidden(legend.hidden);
    $("views").hidden = Boolean(viewer.onlyPlane);
    setView(viewer.onlyPlane || "all");
    fillWindows();
    setOpacity(Number($("opacity").value));
    $("veil").textContent = "";
  } catch (problem) {
    if (signal.aborted || problem.status === 401) return fail(problem, signal);
    $("veil").textContent = problem instanceof api.ServiceError ? problem.message : "The images cannot be shown in this browser (WebGL 2 is needed). Download the result instead.";
  }
}

const NO_LABELS = "The segmentation is not drawn: the names of its classes are not stored, or damaged. Download the label map, or send the image again.";

function describeResult(job) {
  $("result-title").textContent = nameOf(job.id);
  $("result-model").textContent = job.model;
  const expires = job.expires ? moment(job.expires) : "";
  $("result-expires").textContent = expires ? `Kept on the server until ${expires}` : "";
  const warnings = [...(job.labels.length ? [] : [NO_LABELS]), ...(job.warnings ?? [])].map((text) => Object.assign(document.createElement("li"), { textContent: sentence(text) }));
  $("warnings-list").replaceChildren(...warnings);
  $("warnings").hidden = !warnings.length;
  const isOffered = job.formats.includes("dicom-seg");
  for (const button of formatButtons) button.disabled = button.dataset.format === "dicom-seg" && !isOffered;
  say("dicom-why", isOffered ? "" : job.input_kind === "dicom" ? "This service cannot write DICOM SEG: its extra [dicom] is not installed."
    : "DICOM SEG refers to the slices of a DICOM series. This image is not DICOM.");
  say("download-wrong", "");
  $("location").textContent = "\u00a0";
}

function showLocation(text, label) {
  const name = document.createElement("b");
  name.textContent = label ? label.name : "";
  if (label) name.style.setProperty("--hue", label.color);
  $("location").replaceChildren(text, name);
}

function setView(name) {
  for (const button of $("views").children) {
    const isChosen = button.dataset.view === name;
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
  }
  shownViewer()?.setView(name);
}

function fillWindows() {
  $("window").replaceChildren(...viewer.windows.map((name) => new Option(name, name, false, name === "soft tissue")));
  $("window-box").hidden = !viewer.windows.length;
}

function setOpacity(value) {
  const limited = Math.max(0, Math.min(100, value));
  $("opacity").value = String(limited);
  $("opacity-value").textContent = percent(limited / 100);
  shownViewer()?.setOpacity(limited / 100);
}

const legend = new Legend({ list: $("legend"), filter: $("legend-filter"), toggleAll: $("toggle-all"), empty: $("legend-empty") }, (hidden) => shownViewer()?.setHidden(hidden));

const DOWNLOADS = { nifti: ["_seg.nii.gz", (job) => job.labelMap ?? api.result(job.id, "nifti")], "dicom-seg": ["_seg.dcm", (job) => api.result(job.id, "dicom-seg")], report: ["_report.html", (job) => api.report(job.id)] };

/** Download a result; it is also saved, under its own name, if another job is on the screen when it arrives. */
async function download(button) {
  const job = current;
  const [suffix, get] = DOWNLOADS[button.dataset.format];
  button.disabled = true;
  say("download-wrong", "");
  try {
    const address = URL.createObjectURL(await get(job));
    Object.assign(document.createElement("a"), { href: address, download: stemOf(nameOf(job.id)) + suffix }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  } catch (problem) {
    if (job === current) say("download-wrong", `${sentence(problem.message)} ${sentence(problem.remedy ?? "")}`);
  } finally {
    if (job === current) button.disabled = false;
  }
}

function home() {
  leave();
  history.replaceState(null, "", location.pathname + location.search);
  say("start-wrong", "");
  if (models.length) showStart(); else start();
}

async function cancel() {
  const job = current;
  home(); // ends an upload
  const { signal } = leaving;
  if (job) await api.remove(job.id).catch((problem) => signal.aborted || say("start-wrong", problem.message));
}

async function remove() {
  const job = current;
  if (!confirm("Delete the image and its result from the server?")) return;
  try {
    await api.remove(job.id);
    if (job === current) home();
  } catch (problem) {
    if (job === current) say("download-wrong", problem.message);
  }
}

async function signIn(event) {
  event.preventDefault();
  const { signal } = leaving;
  say("login-wrong", "");
  try {
    await api.login($("token").value, signal);
    $("token").value = "";
    start();
  } catch (problem) {
    if (signal.aborted) return;
    say("login-wrong", problem.status === 401 ? "This is not the token of the service." : problem.message);
    $("token").select();
  }
}

const KEYS = {
  ...Object.fromEntries(["all", "axial", "coronal", "sagittal", "3d"].map((name, i) => [i + 1, () => $("views").hidden || setView(name)])),
  "+": () => setOpacity(Number($("opacity").value) + 10), "-": () => setOpacity(Number($("opacity").value) - 10),
  o: () => legend.setAll(legend.hidden.size > 0),
  ArrowLeft: () => shownViewer()?.move(-1, 0, 0), ArrowRight: () => shownViewer()?.move(1, 0, 0), ArrowUp: () => shownViewer()?.move(0, 1, 0), ArrowDown: () => shownViewer()?.move(0, -1, 0),
  PageUp: () => shownViewer()?.move(0, 0, 1), PageDown: () => shownViewer()?.move(0, 0, -1),
};

function onKey(event) {
  if ($("result").hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || $("keys").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isArrow = key.startsWith("Arrow") || key.startsWith("Page");
  if (!KEYS[key] || (isArrow && event.target !== $("canvas"))) return; // arrows scroll the page elsewhere
  event.preventDefault();
  event.stopPropagation(); // NiiVue has keys of its own
  KEYS[key]();
}

function onViewKey(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...$("views").children];
  const next = buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length];
  next.focus();
  setView(next.dataset.view);
}

function listen() {
  $("login-form").addEventListener("submit", signIn);
  $("model").addEventListener("change", describeModel);
  $("choose-files").addEventListener("click", () => $("files").click());
  $("choose-folder").addEventListener("click", () => $("folder").click());
  $("files").addEventListener("change", (event) => { const files = [...event.target.files]; event.target.value = ""; if (files.length) submit(files.map((file) => ({ file, folder: "" })), ""); });
  $("folder").addEventListener("change", (event) => { const files = [...event.target.files]; event.target.value = ""; if (files.length) submit(files.map((file) => ({ file, folder: folderOf(file.webkitRelativePath) })), files[0].webkitRelativePath.split("/")[0]); });
  let depth = 0; // dragenter and dragleave also come from children
  const mark = (change) => { depth = Math.max(0, depth + change); $("drop").classList.toggle("over", depth > 0); };
  addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0; mark(0);
    if ($("start").hidden) return;
    const { signal } = leaving;
    const { entries, name } = await filesOfDrop(event.dataTransfer);
    if (!signal.aborted) submit(entries, name);
  });
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); }); // the address keeps the job
  $("cancel").addEventListener("click", cancel);
  $("again").addEventListener("click", home);
  $("next").addEventListener("click", home);
  $("home").addEventListener("click", (event) => { event.preventDefault(); if (!isUploading()) home(); });
  $("delete").addEventListener("click", remove);
  $("views").addEventListener("click", (event) => event.target.dataset.view && setView(event.target.dataset.view));
  $("views").addEventListener("keydown", onViewKey);
  $("window").addEventListener("change", () => shownViewer()?.setWindow($("window").value));
  $("opacity").addEventListener("input", () => setOpacity(Number($("opacity").value)));
  formatButtons.forEach((button) => button.addEventListener("click", () => download(button)));
  $("keys-button").addEventListener("click", () => $("keys").showModal());
  document.addEventListener("keydown", onKey, true);
  addEventListener("hashchange", () => { // by hand, or with the browser's Back
    const id = jobInAddress();
    if (id && id !== current?.id) open(id);
    else if (!location.hash) home();
  });
}

listen();
start();
