// From what a person drops or chooses to the body of an upload. File names often contain names of patients: they stay in
// the browser, and the service receives neutral names with the same suffix. An entry is a file and its folder.
const VOLUMES = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"];
const SUFFIXES = [...VOLUMES, ".zip", ".dcm"];

export const suffixOf = (name) => SUFFIXES.find((suffix) => name.toLowerCase().endsWith(suffix)) ?? "";
export const folderOf = (path) => path.slice(0, path.lastIndexOf("/") + 1);

/** All files of a drop, those in folders included; and its name, if it is one file or folder. */
export async function filesOfDrop(transfer) {
  const dropped = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!dropped.length) return { entries: [...transfer.files].map((file) => ({ file, folder: "" })), name: "" };
  const entries = (await Promise.all(dropped.map(filesBelow))).flat();
  return { entries, name: dropped.length === 1 ? dropped[0].name : "" };
}

async function filesBelow(entry) {
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), folder: folderOf(entry.fullPath) }];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader returns at most 100 entries at a time
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return found;
    for (const child of part) found.push(...await filesBelow(child));
  }
}

const isHidden = ({ file }) => file.name.startsWith(".") || ["DICOMDIR", "Thumbs.db", "desktop.ini"].includes(file.name);

/** Why these files cannot be one image for a model with `nChannels` channels; empty if they can. */
export function problemWith(entries, nChannels) {
  if (!entries.length) return "There is no file in it. Choose an image, a zip archive or a folder with DICOM files.";
  const volumes = entries.filter(({ file }) => VOLUMES.includes(suffixOf(file.name)));
  if (volumes.length > 1 && volumes.length !== nChannels)
    return nChannels === 1 ? "This model segments one image at a time. Choose one image, or the folder of one DICOM series."
      : `This model needs ${nChannels} images of one patient, one for each channel. You chose ${volumes.length}.`;
  if (entries.some(({ file }) => file.size === 0)) return "One of the files is empty. Copy it again, then choose it here.";
  return "";
}

/** Body and headers of the upload, its entries, and the name to show. */
export function uploadOf(allEntries, folderName) {
  const order = (a, b) => (a.folder + a.file.name).localeCompare(b.folder + b.file.name, "en", { numeric: true });
  const entries = allEntries.filter((entry) => !isHidden(entry)).sort(order);
  const name = folderName || entries[0]?.file.name || "";
  if (entries.length === 1) {
    const [{ file }] = entries;
    return { entries, name, headers: { "Content-Type": "application/octet-stream", "X-File-Name": `image${suffixOf(file.name)}` }, body: file };
  }
  const form = new FormData();
  const folders = [...new Set(entries.map((entry) => entry.folder))];
  entries.forEach(({ file, folder }, number) => form.append("files", file, neutralName(file, folders.indexOf(folder), number)));
  return { entries, name, headers: {}, body: form };
}

function neutralName(file, folder, number) {
  const suffix = suffixOf(file.name);
  if (VOLUMES.includes(suffix)) return `image_${String(number).padStart(4, "0")}${suffix}`; // the channels of one image
  return `series_${folder}/${String(number).padStart(6, "0")}${suffix}`;
}
