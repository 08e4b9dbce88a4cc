// The picture, the masks on it, and the brush. One instance shows one frame; it knows no server.

const TINT = 90; // opacity of a mask, of 255
const HALO = [0, 0, 0, 170]; // around outlines, so that they show on bright tissue
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis: colour-blind readers see it rise
const FULL_SCALES = [0.1, 0.2, 0.4, 1]; // of the uncertainty, as parts of the largest possible: the least that holds all is shown
const MOST_UNDO = 30;

export function rampColour(part) {
  const place = Math.min(part, 0.9999) * (RAMP.length - 1), low = Math.floor(place);
  return RAMP[low].map((value, i) => Math.round(value + (place - low) * (RAMP[low + 1][i] - value)));
}
const RAMP_OF_BYTE = Array.from({ length: 256 }, (_, byte) => rampColour(byte / 255));

// Base64 of packed bits, the first pixel in the highest bit, as bytes of 0 and 1; and back.
export function unpack(text, length) {
  const bits = bytes(text), mask = new Uint8Array(length);
  for (let i = 0; i < length; i++) mask[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
  return mask;
}
export function pack(mask) {
  const bits = new Uint8Array((mask.length + 7) >> 3);
  for (let i = 0; i < mask.length; i++) if (mask[i]) bits[i >> 3] |= 128 >> (i & 7);
  return bits;
}
export const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export class Picture {
  // `changed` is called when a stroke has ended.
  constructor(below, overlay, ring, changed) {
    Object.assign(this, { below, overlay, ring, changed });
    this.tool = 'look';
    this.radius = 10; // of the brush, in pixels of the screen
    this.show = { mask: true, outline: true, uncertainty: false };
    this.layers = []; // {code, colour, mask, deviation, undo}; the last one is on top, and is what the brush changes
    this.at = null; // where the brush is, in pixels of the picture
    overlay.addEventListener('pointerdown', (event) => this.#down(event));
    overlay.addEventListener('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel']) overlay.addEventListener(name, () => this.#up());
    overlay.addEventListener('pointerleave', () => { if (!this.stroke) this.ring.hidden = true; });
    overlay.addEventListener('keydown', (event) => this.#key(event));
    overlay.addEventListener('blur', () => { this.ring.hidden = true; });
    new ResizeObserver(() => this.fit()).observe(overlay.parentElement.parentElement);
    addEventListener('resize', () => this.fit());
  }

  // A new file: `aspect` is height of a pixel over its width.
  size(width, height, aspect) {
    Object.assign(this, { width, height, aspect });
    for (const canvas of [this.below, this.overlay]) Object.assign(canvas, { width, height });
    this.image = this.overlay.getContext('2d').createImageData(width, height);
    this.at = { x: width / 2, y: height / 2 };
    this.ring.hidden = true;
    this.fit();
  }

  // As large as the window lets it be, with pixels as tall as they are in the body.
  fit() {
    if (!this.width) return;
    const room = this.overlay.parentElement.parentElement.clientWidth;
    const narrow = matchMedia('(max-width: 50rem)').matches;
    const tall = Math.max(200, narrow ? innerHeight * 0.42 : innerHeight - 150);
    const scale = Math.min(room / this.width, tall / (this.height * this.aspect), 4);
    for (const canvas of [this.below, this.overlay]) {
      canvas.style.width = `${Math.round(this.width * scale)}px`;
      canvas.style.height = `${Math.round(this.height * this.aspect * scale)}px`;
    }
    this.perPixel = 1 / scale; // pixels of the picture for one of the screen
    this.draw();
  }

  // What the brightest colour stands for, as a part of the largest possible uncertainty.
  fullScale() {
    const deviation = this.layers.at(-1)?.deviation;
    const most = deviation ? deviation.reduce((a, b) => Math.max(a, b), 0) / 255 : 0;
    return FULL_SCALES.find((full) => most <= full);
  }

  picture(bitmap) { this.below.getContext('2d').drawImage(bitmap, 0, 0); }

  // Draw the masks inside a box, all of it by default.
  draw(left = 0, top = 0, right = this.width, bottom = this.height) {
    const { width, height, image: { data } } = this;
    const top_ = this.layers.at(-1), thick = Math.max(1, Math.round(this.perPixel * 2.3));
    [left, top] = [Math.max(0, left - thick), Math.max(0, top - thick)];
    [right, bottom] = [Math.min(width, right + thick), Math.min(height, bottom + thick)];
    const bright = this.show.uncertainty ? 1 / this.fullScale() : 1;
    const edge = (mask, x, y, i) => { // whether a pixel `thick` away is of the other kind
      const own = mask[i];
      return (x >= thick && mask[i - thick] !== own) || (x < width - thick && mask[i + thick] !== own)
        || (y >= thick && mask[i - thick * width] !== own) || (y < height - thick && mask[i + thick * width] !== own);
    };
    for (let y = top; y < bottom; y++) {
      for (let x = left, i = y * width + left; x < right; x++, i++) {
        let colour = null, alpha = 0;
        if (this.show.uncertainty && top_?.deviation) {
          const byte = Math.round(top_.deviation[i] * bright);
          colour = RAMP_OF_BYTE[byte];
          alpha = Math.min(200, byte * 4);
        }
        for (const layer of this.layers) {
          if (this.show.outline && edge(layer.mask, x, y, i)) {
            if (layer.mask[i]) [colour, alpha] = [layer.colour, 255];
            else if (alpha < 255) [colour, alpha] = [HALO, HALO[3]];
          } else if (layer === top_ && layer.mask[i] && this.show.mask && !this.show.uncertainty && alpha < HALO[3]) {
            [colour, alpha] = [layer.colour, TINT];
          }
        }
        if (colour) data.set(colour, i * 4);
        data[i * 4 + 3] = alpha;
      }
    }
    if (right > left && bottom > top) this.overlay.getContext('2d').putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
  }

  undo() {
    const layer = this.layers.at(-1);
    if (!layer?.undo.length) return;
    layer.mask.set(layer.undo.pop());
    this.draw();
    this.changed();
  }

  // --- brush

  #place(event) {
    const box = this.overlay.getBoundingClientRect();
    return { x: (event.clientX - box.left) * this.width / box.width, y: (event.clientY - box.top) * this.height / box.height };
  }

  #down(event) {
    if (this.tool === 'look' || !this.layers.length || event.button || !event.isPrimary) return;
    event.preventDefault();
    this.overlay.focus({ preventScroll: true, focusVisible: false });
    this.overlay.setPointerCapture(event.pointerId);
    this.#begin();
    this.at = this.#place(event);
    this.#stamp(this.at, this.at);
  }

  #move(event) {
    if (this.tool === 'look') return;
    const steps = this.stroke ? event.getCoalescedEvents?.() ?? [] : [];
    for (const step of steps.length ? steps : [event]) {
      const next = this.#place(step);
      if (this.stroke) this.#stamp(this.at, next);
      this.at = next;
    }
    this.#showRing();
  }

  #up() {
    if (!this.stroke) return;
    this.stroke = false;
    this.changed();
  }

  #begin() {
    const { mask, undo } = this.layers.at(-1);
    undo.push(mask.slice());
    if (undo.length > MOST_UNDO) undo.shift();
    this.stroke = true;
  }

  // A disc along a line.
  #stamp(from, to) {
    const { mask } = this.layers.at(-1), value = this.tool === 'add' ? 1 : 0;
    const radius = Math.max(0.5, this.radius * this.perPixel), flat = radius / this.aspect;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, radius / 3)));
    for (let step = 0; step <= steps; step++) {
      const cx = from.x + (to.x - from.x) * step / steps, cy = from.y + (to.y - from.y) * step / steps;
      for (let y = Math.max(0, Math.floor(cy - flat)); y < Math.min(this.height, cy + flat); y++) {
        const half = Math.sqrt(Math.max(0, 1 - ((y + 0.5 - cy) / flat) ** 2)) * radius;
        const left = Math.max(0, Math.ceil(cx - half - 0.5)), right = Math.min(this.width, Math.floor(cx + half + 0.5));
        if (right > left) mask.fill(value, y * this.width + left, y * this.width + right);
      }
    }
    const [xs, ys] = [[from.x, to.x], [from.y, to.y]].map((pair) => pair.sort((a, b) => a - b));
    this.draw(Math.floor(xs[0] - radius), Math.floor(ys[0] - flat), Math.ceil(xs[1] + radius) + 1, Math.ceil(ys[1] + flat) + 1);
  }

  #showRing() {
    const box = this.overlay.getBoundingClientRect();
    this.ring.hidden = this.tool === 'look';
    Object.assign(this.ring.style, {
      left: `${this.at.x * box.width / this.width}px`, top: `${this.at.y * box.height / this.height}px`,
      width: `${2 * this.radius}px`, height: `${2 * this.radius}px`,
    });
  }

  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const paints = event.key === ' ' || event.key === 'Enter';
    if (this.tool === 'look' || !this.layers.length || !(step || paints) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (step) {
      const far = Math.max(1, this.radius * this.perPixel / 2);
      this.at = { x: Math.min(this.width, Math.max(0, this.at.x + step[0] * far)), y: Math.min(this.height, Math.max(0, this.at.y + step[1] * far)) };
    } else {
      this.#begin();
      this.#stamp(this.at, this.at);
      this.#up();
    }
    this.#showRing();
  }
}
