// From what a person drops or chooses to the body of an upload. File names often contain names of patients: they stay in
// the browser, and the service receives neutral names with the same suffix.
const SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw.gz", ".raw", ".zraw", ".zip", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"];
const VOLUMES = [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"];

export const suffixOf = (name) => SUFFIXES.find((suffix) => name.toLowerCase().endsWith(suffix)) ?? "";

/** All files of a drop, those in folders included. */
export async function filesOfDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return { files: [...transfer.files], name: "" };
  const files = (await Promise.all(entries.map(filesOfEntry))).flat();
  return { files, name: entries.length === 1 ? entries[0].name : "" };
}

async function filesOfEntry(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader returns at most 100 entries at a time
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    for (const child of part) found.push(...await filesOfEntry(child));
  }
  return found;
}

const isHidden = (file) => file.name.startsWith(".") || file.name === "DICOMDIR" || file.name === "Thumbs.db";

/** Why these files cannot be one image for a model with `nChannels` channels; empty if they can. */
export function problemWith(files, nChannels) {
  if (!files.length) return "There is no file in it. Choose an image, a zip archive or a folder with DICOM files.";
  const volumes = files.filter((file) => VOLUMES.includes(suffixOf(file.name)));
  if (volumes.length > 1 && volumes.length !== nChannels)
    return nChannels === 1 ? "This model segments one image at a time. Choose one image, or the folder of one DICOM series."
      : `This model needs ${nChannels} images of one patient, one for each channel. You chose ${volumes.length}.`;
  if (files.some((file) => file.size === 0 && suffixOf(file.name))) return "One of the files is empty. Copy it again, then choose it here.";
  return "";
}

/** Body and headers of the upload, and the name to show. */
export function uploadOf(allFiles, folderName) {
  const files = allFiles.filter((file) => !isHidden(file));
  const name = folderName || files[0]?.name || "";
  if (files.length === 1) return { files, name, headers: { "Content-Type": "application/octet-stream", "X-File-Name": `image${suffixOf(files[0].name)}` }, body: files[0] };
  const form = new FormData();
  files.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })).forEach((file, index) => form.append("files", file, neutralName(file, index, files)));
  return { files, name, headers: {}, body: form };
}

function neutralName(file, index, files) {
  const suffix = suffixOf(file.name);
  if (VOLUMES.includes(suffix)) return `image_${String(index).padStart(4, "0")}${suffix}`;
  const hasHeader = files.some((other) => [".mhd", ".nhdr"].includes(suffixOf(other.name)));
  return hasHeader ? file.name : `${String(index).padStart(6, "0")}${suffix || ".dcm"}`; // a header names its data file
}
