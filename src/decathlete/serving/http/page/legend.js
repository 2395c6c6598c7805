// The list of classes: colour, name, volume, and a switch for each.
import { volume, voxels } from "./format.js";

const FILTER_FROM = 12;

export class Legend {
  /** `onChange` receives the set of hidden label values. */
  constructor({ list, filter, toggleAll, empty }, onChange) {
    Object.assign(this, { list, filter, toggleAll, empty, onChange, hidden: new Set(), rows: [] });
    toggleAll.addEventListener("click", () => this.setAll(this.hidden.size > 0));
    filter.addEventListener("input", () => this.applyFilter());
  }

  /**
   * Show the classes of a job. `labels`: name, value, color; `volumes_ml`, `voxels`: class name -> mL, and number of
   * voxels, which are shown if an image has no spacing. Classes without a voxel come last, and grey.
   */
  show({ labels, volumes_ml = {}, voxels: counts = {} }) {
    const [sizes, format] = Object.keys(volumes_ml).length ? [volumes_ml, volume] : [counts, voxels];
    const largest = Math.max(...Object.values(sizes), 1e-9);
    const sorted = [...labels].sort((a, b) => Number(!sizes[a.name]) - Number(!sizes[b.name]));
    this.hidden.clear();
    this.rows = sorted.map((label) => this.row(label, sizes[label.name] ?? 0, largest, format));
    this.list.replaceChildren(...this.rows.map((row) => row.item));
    this.empty.hidden = !labels.length || sorted.some((label) => sizes[label.name] > 0);
    this.filter.hidden = sorted.length < FILTER_FROM;
    this.filter.value = "";
    this.nameToggle();
  }

  row(label, size, largest, format) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.title = `Show or hide ${label.name}`;
    for (const [kind, text] of [["swatch", ""], ["name", label.name], ["amount", format(size)], ["bar", ""]]) {
      const span = document.createElement("span");
      span.className = kind;
      span.textContent = text;
      button.append(span);
    }
    item.style.setProperty("--hue", label.color);
    item.style.setProperty("--share", String(size / largest));
    item.classList.toggle("absent", size === 0);
    button.addEventListener("click", () => this.set(label.value, this.hidden.has(label.value)));
    item.append(button);
    return { item, button, label };
  }

  set(value, visible) {
    if (visible) this.hidden.delete(value); else this.hidden.add(value);
    this.update();
  }

  setAll(visible) {
    this.hidden = new Set(visible ? [] : this.rows.map((row) => row.label.value));
    this.update();
  }

  update() {
    for (const row of this.rows) row.button.setAttribute("aria-pressed", String(!this.hidden.has(row.label.value)));
    this.nameToggle();
    this.onChange(this.hidden);
  }

  nameToggle() { this.toggleAll.textContent = this.hidden.size ? "Show all" : "Hide all"; }

  applyFilter() {
    const text = this.filter.value.trim().toLowerCase();
    for (const row of this.rows) row.item.hidden = !row.label.name.toLowerCase().includes(text);
  }
}
