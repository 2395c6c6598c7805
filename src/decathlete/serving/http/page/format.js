// Numbers and times as text.
export function volume(mL) {
  if (mL === 0) return "0 mL";
  if (mL < 0.01) return "< 0.01 mL";
  const digits = mL < 1 ? 2 : mL < 100 ? 1 : 0;
  return `${mL.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} mL`;
}

export const voxels = (n) => `${n.toLocaleString("en")} ${n === 1 ? "voxel" : "voxels"}`;

export function duration(seconds) {
  if (seconds < 1.5) return "1 second";
  if (seconds < 90) return `${Math.round(seconds)} seconds`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} minutes` : `${(seconds / 3600).toFixed(1)} hours`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export function moment(text) {
  const date = new Date(typeof text === "number" ? 1000 * text : text);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

export function megabytes(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** A message of the program as a sentence: with a capital letter and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed && trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?:]$/.test(trimmed) ? "" : ".");
}
