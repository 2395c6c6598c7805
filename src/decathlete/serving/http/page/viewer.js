// The image with its segmentation, drawn by NiiVue (vendor/niivue).
const VIEWS = { all: "MULTIPLANAR", axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL", "3d": "RENDER" };
/** Windows of CT in HU; shown for images that contain air. */
const CT_WINDOWS = { "soft tissue": [-160, 240], lung: [-1350, 150], bone: [-450, 1050], brain: [0, 80] };
const AIR_HU = -900;
const CROSSHAIR_PX = 2;

export class Viewer {
  /** `onLocation` receives a text and the label value at the crosshair. */
  constructor(canvas, onLocation) {
    this.onLocation = onLocation;
    this.nv = new niivue.Niivue({
      backColor: [0.043, 0.055, 0.075, 1], crosshairColor: [1, 0.83, 0.2, 0.8], crosshairWidthUnit: "percent", show3Dcrosshair: false,
      isColorbar: false, isRadiologicalConvention: true, showAllOrientationMarkers: true, fontColor: [0.86, 0.9, 0.95, 1], fontMinPx: 14,
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID, multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, renderOverlayBlend: 1, tileMargin: 6,
      dragAndDropEnabled: false, logLevel: "error",
    });
    this.ready = this.nv.attachToCanvas(canvas);
    this.nv.onLocationChange = (place) => this.report(place);
  }

  /** Show two files; `labels`: name, value, color. An aborted `signal` ends it, and nothing is drawn then. */
  async show(image, segmentation, labels, signal) {
    await this.ready;
    const load = (file, name, options) => niivue.NVImage.loadFromFile({ file: new File([file], name), name, ...options });
    const background = await load(image, "image.nii.gz", { colormap: "gray" });
    const overlay = await load(segmentation, "segmentation.nii.gz", { opacity: 0 });
    signal.throwIfAborted();
    this.clear();
    this.labels = labels;
    this.nv.addVolume(background);
    this.nv.addVolume(overlay);
    this.isCT = background.global_min <= AIR_HU && background.global_max < 10000;
    this.setWindow(this.isCT ? "soft tissue" : "full range");
    this.setHidden(new Set());
    this.nv.setRenderAzimuthElevation(120, 12);
    this.moveToLargest(overlay);
  }

  clear() { while (this.nv.volumes.length) this.nv.removeVolume(this.nv.volumes[0]); }

  /** Names of the windows that fit the image. */
  get windows() { return this.isCT ? ["full range", ...Object.keys(CT_WINDOWS)] : []; }

  setWindow(name) {
    const volume = this.nv.volumes[0];
    [volume.cal_min, volume.cal_max] = CT_WINDOWS[name] ?? [volume.robust_min, volume.robust_max];
    this.nv.updateGLVolume();
  }

  /** The only plane of an image with one slice; empty for a volume. */
  get onlyPlane() {
    const axis = this.nv.volumes[0].dimsRAS.slice(1, 4).indexOf(1);
    return axis < 0 ? "" : ["sagittal", "coronal", "axial"][axis];
  }

  setView(name) {
    this.nv.opts.crosshairWidth = (100 * CROSSHAIR_PX * devicePixelRatio) / this.nv.canvas.width;
    this.nv.setOpacity(0, name === "3d" ? 0 : 1); // alone, the classes are seen best without the image around them
    this.nv.setSliceType(niivue.SLICE_TYPE[VIEWS[name]]);
  }

  setOpacity(share) { this.nv.setOpacity(1, share); }

  /** Hide the classes with these label values. */
  setHidden(hidden) {
    // Two clear entries below 0: NiiVue 0.69 tints the background if a table has more than 64 entries.
    const table = { R: [0, 0, 0], G: [0, 0, 0], B: [0, 0, 0], A: [0, 0, 0], I: [-2, -1, 0], labels: ["", "", ""] };
    for (const label of [...this.labels].sort((a, b) => a.value - b.value)) {
      const [red, green, blue] = [1, 3, 5].map((start) => parseInt(label.color.slice(start, start + 2), 16));
      table.R.push(red); table.G.push(green); table.B.push(blue);
      table.A.push(hidden.has(label.value) ? 0 : 255);
      table.I.push(label.value); table.labels.push(label.name);
    }
    const overlay = this.nv.volumes[1];
    overlay.setColormapLabel(table);
    overlay.colormapLabel.labels = table.labels.slice(2); // NiiVue looks names up by value
    this.nv.updateGLVolume();
  }

  /** Move the crosshair by voxels of the image. */
  move(x, y, z) { this.nv.moveCrosshairInVox(x, y, z); }

  /** Move the crosshair to the voxel nearest to the centre of all classes, so that the first view shows them. */
  moveToLargest(overlay) {
    const [, nx, ny, nz] = overlay.dimsRAS;
    const centre = [0, 0, 0];
    let n = 0;
    const image = overlay.img2RAS();
    for (let i = 0; i < image.length; i++) if (image[i] > 0) {
      centre[0] += i % nx; centre[1] += Math.floor(i / nx) % ny; centre[2] += Math.floor(i / (nx * ny)); n++;
    }
    if (!n) return;
    const size = [nx, ny, nz];
    this.nv.scene.crosshairPos = centre.map((sum, axis) => (sum / n + 0.5) / size[axis]);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  report(place) {
    const [x, y, z] = place.mm;
    const [background, overlay] = place.values;
    const label = this.labels?.find((entry) => entry.value === Math.round(overlay?.value ?? 0));
    const side = (value, plus, minus) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(1)}`;
    const text = `${side(x, "R", "L")}  ${side(y, "A", "P")}  ${side(z, "S", "I")} mm  ·  value ${Number(background?.value ?? 0).toPrecision(4) * 1}`;
    this.onLocation(text, label);
  }
}
